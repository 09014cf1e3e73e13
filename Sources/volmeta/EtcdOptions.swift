// Where etcd is, as the command line says it.

import ArgumentParser
import Metadata

/// Names an etcd cluster.
struct EtcdOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "An etcd cluster to keep the metadata in, instead of --data: "
                + "etcd://HOST:PORT[,HOST:PORT...][/NAMESPACE], or etcds:// for TLS.",
            valueName: "url"
        )
    )
    var store: String?

    @Option(help: ArgumentHelp("Who signed etcd's certificates, in PEM.", valueName: "file"))
    var storeCa: String?

    @Option(help: ArgumentHelp("Our certificate for etcd, in PEM.", valueName: "file"))
    var storeCert: String?

    @Option(help: ArgumentHelp("The key of --store-cert, in PEM.", valueName: "file"))
    var storeKey: String?

    /// The configuration; nil when no cluster is named.
    func configuration() throws -> EtcdConfiguration? {
        guard let store else { return nil }
        var configuration = try Self.configuration(store, option: "--store")
        configuration.transportSecurity.authorityPath = storeCa
        configuration.transportSecurity.certificatePath = storeCert
        configuration.transportSecurity.privateKeyPath = storeKey
        return configuration
    }

    func validate() throws {
        if let store { _ = try Self.configuration(store, option: "--store") }
        guard (storeCert == nil) == (storeKey == nil) else {
            throw ValidationError("--store-cert and --store-key go together.")
        }
    }

    static func configuration(_ text: String, option: String) throws -> EtcdConfiguration {
        guard let configuration = EtcdConfiguration(text) else {
            throw ValidationError(
                "The value '\(text)' is invalid for '\(option) <url>': it is "
                    + "etcd://HOST:PORT[,HOST:PORT...][/NAMESPACE], or etcds:// for TLS"
            )
        }
        return configuration
    }
}
