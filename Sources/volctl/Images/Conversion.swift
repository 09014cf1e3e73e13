// `qemu-img convert` between a file and one of our NBD exports.

import Foundation
package import ProgramMain

/// One conversion.
package struct Conversion: Hashable, Sendable {
    /// The arguments of `qemu-img`.
    package var arguments: [String]
    /// What to do when what is written to is full.
    package var fullRemedy: String
    /// The node that serves the volume or snapshot.
    package var node: ServingNode

    /// Parallel copies under way within one conversion.
    private static var coroutineCount: Int { 8 }
    /// Zeros of this length become holes, in bytes; the store's block.
    private static var sparseByteCount: Int { 4096 }

    /// Copies an image into a volume.
    ///
    /// - Parameters:
    ///   - image: The image.
    ///   - node: The volume, writable.
    ///   - isBlank: Whether the volume is known to read as zeros, so that nothing needs to be
    ///     written where the image has none.
    /// - Returns: The conversion, to be run.
    package static func `import`(
        _ image: DiskImage,
        to node: ServingNode,
        isBlank: Bool
    )
        -> Conversion
    {
        var arguments = ["convert", "-p", "-n"]
        if isBlank { arguments.append("--target-is-zero") }
        // The default cache mode, unsafe, would leave the final flush out.
        arguments += ["-t", "writeback", "-W", "-m", "\(coroutineCount)"]
        arguments += ["-S", "\(sparseByteCount)", "-f", image.format.rawValue, "-O", "raw"]
        return Conversion(
            arguments: arguments + [image.path, node.uri],
            fullRemedy: "'volctl node list' shows which nodes have room; choose one with --node.",
            node: node
        )
    }

    /// Copies an export into a new file.
    ///
    /// - Parameters:
    ///   - node: The volume or snapshot.
    ///   - path: The file, absolute; it is overwritten.
    ///   - format: The format of the file.
    ///   - isCompressed: Whether the clusters of a qcow2 file are compressed.
    /// - Returns: The conversion, to be run.
    package static func export(
        _ node: ServingNode,
        to path: String,
        format: ImageFormat,
        isCompressed: Bool
    ) -> Conversion {
        var arguments = ["convert", "-p", "-t", "writeback", "-m", "\(coroutineCount)"]
        // qemu-img refuses out-of-order writes of compressed clusters.
        arguments += isCompressed ? ["-c"] : ["-W"]
        arguments += ["-S", "\(sparseByteCount)", "-f", "raw", "-O", format.rawValue]
        return Conversion(
            arguments: arguments + [node.uri, path],
            fullRemedy: "Make room, or export to another disk; 'df -h' shows them.",
            node: node
        )
    }

    /// Runs it.
    ///
    /// - Throws: ``CommandFailure``, also when the node takes connections and does not answer.
    package func run(progress: ProgressDisplay) throws {
        try node.requireAnswer()
        var text = ""
        let result = try Tool.qemuImage.run(arguments, servedBy: node) { piece in
            text += String(decoding: piece, as: UTF8.self)
            if let percent = Self.percent(in: text) { progress.update(percent: percent) }
            text = String(text.suffix(32))
        }
        guard result.isSuccess else {
            let isFull = result.reason.contains("No space left on device")
            throw CommandFailure(
                isFull ? "no_space" : "convert_failed",
                "qemu-img could not copy: \(result.reason).",
                remedy: isFull ? fullRemedy : "'volctl node show \(node.name)' shows its state."
            )
        }
        progress.update(percent: 100)
    }

    /// The newest percentage in what `qemu-img convert -p` writes: `    (12.34/100%)`.
    package static func percent(in text: String) -> Double? {
        for piece in text.split(separator: "(").reversed() {
            guard let slash = piece.range(of: "/100%)") else { continue }
            return Double(piece[..<slash.lowerBound])
        }
        return nil
    }
}
