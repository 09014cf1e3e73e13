// iSCSI of a node: where it listens, and who gets in.

import ArgumentParser
import ControlAPI
import ProgramMain
import Reactor
import StorageNode

/// The options of `volnode run` about iSCSI.
struct ISCSIOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Where to serve iSCSI initiators.", valueName: "host:port"),
        transform: HostPort.argument
    )
    var iscsi: HostPort?

    @Option(
        help: ArgumentHelp(
            "Where initiators reach iSCSI, if not at --iscsi.",
            valueName: "host:port"
        ),
        transform: HostPort.advertised
    )
    var advertiseIscsi: HostPort?

    @Option(
        help: ArgumentHelp(
            "The file that says which initiators may use which volumes, and their secrets.",
            valueName: "file"
        )
    )
    var iscsiInitiators: String?

    @Flag(help: "Let every initiator use every volume that is exported.")
    var iscsiAnyInitiator = false

    func validate() throws {
        guard let iscsi else {
            let isAny = advertiseIscsi != nil || iscsiInitiators != nil || iscsiAnyInitiator
            guard !isAny else {
                throw ValidationError(
                    "--advertise-iscsi, --iscsi-initiators and --iscsi-any-initiator need --iscsi."
                )
            }
            return
        }
        guard iscsiInitiators == nil || !iscsiAnyInitiator else {
            throw ValidationError(
                "--iscsi-initiators and --iscsi-any-initiator exclude each other. Leave one of them "
                    + "out."
            )
        }
        let isLocal = PeerAddress(host: iscsi.host, port: iscsi.port).isLoopback
        guard isLocal || iscsiInitiators != nil || iscsiAnyInitiator else {
            throw ValidationError(
                "Whoever reaches '\(iscsi)' could use every volume that is exported. Add "
                    + "--iscsi-initiators FILE, or --iscsi-any-initiator on a network that nobody else "
                    + "is on."
            )
        }
    }

    /// Adds what the options say.
    ///
    /// - Throws: `Failure` when the file of initiators cannot be used.
    func apply(to configuration: inout NodeConfiguration) throws {
        guard let iscsi else { return }
        configuration.iscsiListeners = [.tcp(host: iscsi.host, port: iscsi.port)]
        if let advertiseIscsi {
            configuration.iscsiAdvertised = [
                .tcp(host: advertiseIscsi.host, port: advertiseIscsi.port)
            ]
        }
        guard let iscsiInitiators else { return }
        do throws(ISCSIAccessError) {
            configuration.iscsiAccess = try ISCSIAccess(path: iscsiInitiators)
        } catch { throw Failure(error) }
    }
}

extension Failure {
    /// A file of initiators that cannot be used.
    init(_ error: ISCSIAccessError) {
        switch error {
        case .unreadable(let path, let errno):
            self.init(
                "\(path) cannot be read: \(errorText(errno)).",
                help: "--iscsi-initiators takes a file of rules: INITIATOR VOLUME USER:SECRET."
            )
        case .exposed(let path, let mode):
            self.init(
                "\(path) holds secrets, and others than its owner have access to it (mode "
                    + "\(String(mode, radix: 8))).",
                help: "Run 'chmod 600 \(path)'."
            )
        case .tooLarge(let path):
            self.init(
                "\(path) is larger than \(ByteSize(byteCount: UInt64(ISCSIAccess.fileByteCountMax))).",
                help: "Check that it is the file of initiators."
            )
        case .malformed(let path, let line, let fault):
            self.init("\(path), line \(line): \(fault.text).", help: nil)
        }
    }
}

extension ISCSIRuleFault {
    /// What is wrong, for people; never with a secret in it.
    fileprivate var text: String {
        switch self {
        case .wordCount:
            "a rule has three or four words, INITIATOR VOLUME USER:SECRET [OWN-USER:OWN-SECRET]"
        case .initiator:
            "the first word is '*' or an initiator's name, which begins with iqn., eui. or naa."
        case .credentials: "credentials are USER:SECRET, or '-' alone for none"
        case .secretLength:
            "a secret has \(ISCSIAccess.secretByteCountMin) to \(ISCSIAccess.secretByteCountMax) bytes"
        case .sameSecret: "the node's secret has to be another one than the initiator's"
        }
    }
}
