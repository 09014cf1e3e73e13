// Values of the command line that have a form of their own.

public import ArgumentParser
public import ControlAPI
import Foundation
import ProgramMain

/// `VOLUME@SNAPSHOT`.
package struct SnapshotReference: Hashable, Sendable, CustomStringConvertible {
    /// The volume's name.
    package var volume: String
    /// The snapshot's name.
    package var snapshot: String

    /// Creates a reference.
    package init(volume: String, snapshot: String) {
        self.volume = volume
        self.snapshot = snapshot
    }

    /// Reads `VOLUME@SNAPSHOT`.
    ///
    /// - Throws: `ValidationError`, which is wrong usage.
    package init(parsing text: String) throws {
        let parts = text.split(separator: "@", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty }) else {
            throw ValidationError("'\(text)' is not VOLUME@SNAPSHOT, such as vm1@monday.")
        }
        try Usage.require(parts[0], of: "volume")
        try Usage.require(parts[1], of: "snapshot")
        self.init(volume: parts[0], snapshot: parts[1])
    }

    package var description: String { "\(volume)@\(snapshot)" }
}

/// `IMAGE:VERSION`.
package struct ImageReference: Hashable, Sendable, CustomStringConvertible {
    /// The image's name.
    package var name: String
    /// The version of it.
    package var version: String

    /// Reads `IMAGE:VERSION`.
    ///
    /// - Throws: `ValidationError`, which is wrong usage.
    package init(parsing text: String) throws {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty }) else {
            throw ValidationError("'\(text)' is not IMAGE:VERSION, such as debian:12.")
        }
        try Usage.require(parts[0], of: "image")
        try Usage.require(parts[1], of: "version")
        name = parts[0]
        version = parts[1]
    }

    package var description: String { "\(name):\(version)" }
}

/// What a clone starts as: a snapshot or an image.
package enum CloneSource: Hashable, Sendable {
    /// `VOLUME@SNAPSHOT`.
    case snapshot(SnapshotReference)
    /// `IMAGE:VERSION`.
    case image(ImageReference)

    /// Reads either form.
    ///
    /// - Throws: `ValidationError`, which is wrong usage.
    package init(parsing text: String) throws {
        if text.contains("@") {
            self = .snapshot(try SnapshotReference(parsing: text))
        } else if text.contains(":") {
            self = .image(try ImageReference(parsing: text))
        } else {
            throw ValidationError(
                "'\(text)' is neither VOLUME@SNAPSHOT nor IMAGE:VERSION; a clone starts as a "
                    + "snapshot: volctl snapshot create \(text)@NAME"
            )
        }
    }
}

/// What can be exported: a volume as it is now, or a snapshot of it.
package struct ExportSource: Hashable, Sendable, CustomStringConvertible {
    /// The volume's name.
    package var volume: String
    /// The snapshot's name.
    package var snapshot: String?

    /// Reads `VOLUME` or `VOLUME@SNAPSHOT`.
    ///
    /// - Throws: `ValidationError`, which is wrong usage.
    package init(parsing text: String) throws {
        if text.contains("@") {
            let reference = try SnapshotReference(parsing: text)
            (volume, snapshot) = (reference.volume, reference.snapshot)
        } else {
            try Usage.require(text, of: "volume")
            (volume, snapshot) = (text, nil)
        }
    }

    package var description: String { snapshot.map { "\(volume)@\($0)" } ?? volume }
}

/// A logical block size.
package enum BlockSizeArgument: String, CaseIterable, ExpressibleByArgument, Sendable {
    case bytes512 = "512"
    case bytes4096 = "4096"

    /// The number of bytes.
    package var byteCount: UInt32 { self == .bytes512 ? 512 : 4096 }
}

extension DurabilityMode: ExpressibleByArgument {}
extension AttachmentProtocol: ExpressibleByArgument {}
extension ImageFormat: ExpressibleByArgument {}
