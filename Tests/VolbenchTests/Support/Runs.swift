import Foundation
import volbench

/// Runs of volbench inside the test.
enum Runs {
    /// Runs the jobs of a command line.
    static func run(_ arguments: [String]) throws -> [JobResult] {
        let invocation = try Invocation(parsing: arguments)
        let session = Session(jobs: invocation.jobs, target: invocation.target)
        return session.run()
    }

    /// The only result of a command line.
    static func one(_ arguments: String...) throws -> JobResult { try run(arguments)[0] }

    /// A plan of one job over `targetByteCount`.
    static func plan(
        _ options: [String: String],
        targetByteCount: UInt64 = 1 << 30,
        clone: Int = 0
    ) throws -> JobPlan {
        var job = JobOptions()
        for (name, value) in options.sorted(by: { $0.key < $1.key }) {
            try OptionTable.apply(name, value, to: &job, isOwn: true)
        }
        try JobList.check(job)
        return try JobPlan(job, cloneIndex: clone, targetByteCount: targetByteCount)
    }

    /// The operations of a plan, all or the first `count`.
    static func operations(_ plan: JobPlan, count: Int = .max) -> [volbench.Operation] {
        let source = OperationSource(plan: plan)
        var result: [volbench.Operation] = []
        while result.count < count, let operation = source.next() { result.append(operation) }
        return result
    }
}
