// Text for people: what the system says, and what fits a terminal.

import Glibc

extension String {
    /// The text on one line, without characters that would move a terminal's cursor.
    package var printable: String {
        var scalars = UnicodeScalarView()
        for scalar in unicodeScalars {
            switch scalar.properties.generalCategory {
            case .lineSeparator, .paragraphSeparator:
                scalars.append(" ")
            case .control, .format, .surrogate:
                scalars.append(scalar == "\n" || scalar == "\r" || scalar == "\t" ? " " : "?")
            default:
                scalars.append(scalar)
            }
        }
        return String(scalars)
    }

    /// The text cut to `width` characters, the cut marked by an ellipsis.
    package func shortened(to width: Int) -> String {
        count <= width ? self : String(prefix(max(0, width - 1))) + "\u{2026}"
    }
}

/// The text of a system error, such as "No space left on device".
package func systemErrorText(_ code: Int32 = errno) -> String {
    // SAFETY: strerror returns a string that is valid until the next call; it is copied at once.
    unsafe String(cString: strerror(code))
}
