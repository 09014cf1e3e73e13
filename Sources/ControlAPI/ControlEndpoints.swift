// Where the metadata service is: one address, or those of several programs of which one leads.

/// The addresses of a metadata service.
public struct ControlEndpoints: Sendable, Hashable, CustomStringConvertible {
    /// The most that a list has.
    ///
    /// Chosen so that asking all of them, one after the other, stays short of a minute.
    public static var countMax: Int { 8 }

    /// The addresses, in the order in which they are asked first; at least one.
    public let all: [APIEndpoint]

    /// The one address of a service.
    public init(_ endpoint: APIEndpoint) { all = [endpoint] }

    /// Reads addresses with commas between them, each as ``APIEndpoint/init(_:)`` takes it.
    ///
    /// A socket's path may have commas: what is no address belongs to the path before it.
    ///
    /// - Throws: ``ControlError/Code/invalidArgument`` with what is wrong.
    public init(_ text: String) throws(ControlError) {
        var all: [APIEndpoint] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false).map(String.init) {
            do throws(ControlError) {
                all.append(try APIEndpoint(part))
            } catch {
                guard case .unix(let path) = all.popLast() else { throw error }
                all.append(try APIEndpoint("unix:\(path),\(part)"))
            }
        }
        guard all.count <= Self.countMax, Set(all).count == all.count else {
            throw ControlError(
                .invalidArgument,
                "A list of endpoints has 1 to \(Self.countMax) different ones, not \(all.count).",
                help: "Write http://HOST:PORT[,http://HOST:PORT...]."
            )
        }
        self.all = all
    }

    /// The spelling that ``init(_:)`` reads.
    public var description: String { all.map(\.description).joined(separator: ",") }
}
