// What goes to standard output: one JSON document, or text for people.

import ControlAPI
package import Foundation
import Glibc
import ProgramMain

/// Prints `document` as the one JSON document of a call.
package func printDocument(_ document: some Encodable) {
    guard let data = try? ControlJSON.encoder(pretty: true).encode(document) else {
        preconditionFailure("documents of this program are encodable")
    }
    writeText(String(decoding: data, as: UTF8.self) + "\n", to: STDOUT_FILENO, for: .program)
}

/// Prints `document` on one line, for output that goes on for ever.
package func printLine(_ document: some Encodable) {
    guard let data = try? ControlJSON.encoder().encode(document) else {
        preconditionFailure("documents of this program are encodable")
    }
    writeText(String(decoding: data, as: UTF8.self) + "\n", to: STDOUT_FILENO, for: .program)
}

/// Prints text for people.
package func printText(_ text: String) {
    writeText(text.hasSuffix("\n") ? text : text + "\n", to: STDOUT_FILENO)
}

/// The document of a deletion.
package struct DeletionDocument: Codable, Hashable, Sendable {
    /// The volume deleted, or the one whose snapshot was.
    package var volume: String?
    /// The snapshot deleted.
    package var snapshot: String?
    /// The image deleted, as `NAME:VERSION`.
    package var image: String?
    /// The node forgotten.
    package var node: String?
    /// Whether it was there.
    package var deleted: Bool

    /// Creates a document.
    package init(
        volume: String? = nil,
        snapshot: String? = nil,
        image: String? = nil,
        node: String? = nil,
        deleted: Bool
    ) {
        self.volume = volume
        self.snapshot = snapshot
        self.image = image
        self.node = node
        self.deleted = deleted
    }
}

/// `bytes` in binary units, or a dash when unknown.
package func sizeText(_ byteCount: UInt64?) -> String {
    byteCount.map { ByteSize(byteCount: $0).description } ?? "-"
}

/// A time in the user's time zone.
package func timeText(_ date: Date) -> String {
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    formatter.dateFormat = "yyyy-MM-dd HH:mm:ss"
    return formatter.string(from: date)
}
