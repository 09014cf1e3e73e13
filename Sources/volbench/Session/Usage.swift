extension Invocation {
    /// The text of `--help`.
    package static var usage: String {
        let head = """
            usage: volbench [TARGET] [JOBFILE.fio ...] [--OPTION[=VALUE] ...]

            TARGET  nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, a file or block
                    device (opened with O_DIRECT), or null: (the generator alone)

              --output-format=F    normal, terse, json, json+ (fio's), brief (as --json)
              --output=FILE        print the results there
              --json               one short document for all jobs
              --eta=WHEN           the live line: auto, always, never
              --server-pid=PID     report the CPU of this process; NAME=PID with --compare
              --dev[=DIR]          the same for the nodes of the development cluster
              --hook=S:ACTION:WHAT at second S: kill, stop or cont process WHAT, run command WHAT
              --compare N=T N=T .. run the jobs on several targets in turns
              --rounds=N           turns of a comparison (5)
              --suite=NAME         built-in jobs; list says which
              --suite-runtime=S    seconds of each job of a suite
              --clones=N, --steps=N, --step-command=COMMAND
                                   of the suites that need them: see Docs/volbench.md
              --report=FILE.md     a report with plots, of a suite or a comparison
              --notes=FILE.md      what goes into the report about the servers
              --version, --help

            Options of jobs, as in a job file:

            """
        let lines = OptionTable.entries.map { entry in
            let name = "  --" + entry.name
            let padding = String(repeating: " ", count: max(1, 23 - name.count))
            return name + padding + entry.help
        }
        let tail = """


            Sizes take k, m, g, t (powers of 1024). WRITING MODES OVERWRITE THE TARGET.
            Exit status: 0 measured, 1 something failed, 2 usage.
            """
        return head + lines.joined(separator: "\n") + tail
    }
}
