internal import CLinux

/// The system's words for a positive errno; for messages, never for decisions.
public func errorText(_ errno: Int32) -> String {
    var bytes = [CChar](repeating: 0, count: 128)
    let count = bytes.count
    // SAFETY: the array is borrowed for the call, which terminates what it writes.
    return unsafe bytes.withUnsafeMutableBufferPointer { buffer in
        guard let base = buffer.baseAddress else { return "error \(errno)" }
        unsafe cbl_error_text(errno, base, count)
        return unsafe String(cString: base)
    }
}
