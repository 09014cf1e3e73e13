/// A drawing, as text: the few shapes that plots need.
package struct SVGCanvas {
    private let width: Double
    private let height: Double
    private var shapes: [String] = []

    /// Colours that people with any kind of sight tell apart.
    ///
    /// Source: Okabe, Ito, "Color universal design" (2008).
    package static let colors = [
        "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#9a8500",
    ]

    /// The colour of the target with this index.
    package static func color(_ index: Int) -> String { colors[index % colors.count] }

    /// Creates a white canvas.
    package init(width: Double, height: Double) {
        self.width = width
        self.height = height
    }

    private static func number(_ value: Double) -> String { fixed(value, 1) }

    private static func escaped(_ text: String) -> String {
        var result = ""
        for character in text {
            switch character {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            default: result.append(character)
            }
        }
        return result
    }

    /// Draws a straight line.
    package mutating func line(
        _ from: (x: Double, y: Double),
        _ to: (x: Double, y: Double),
        color: String,
        width: Double = 1
    ) {
        let n = SVGCanvas.number
        shapes.append(
            "<line x1=\"\(n(from.x))\" y1=\"\(n(from.y))\" x2=\"\(n(to.x))\" y2=\"\(n(to.y))\" "
                + "stroke=\"\(color)\" stroke-width=\"\(n(width))\"/>"
        )
    }

    /// Draws a line through points.
    package mutating func path(_ points: [(x: Double, y: Double)], color: String, opacity: Double) {
        guard points.count > 1 else { return }
        let text = points.map { "\(SVGCanvas.number($0.x)),\(SVGCanvas.number($0.y))" }
        shapes.append(
            "<polyline points=\"\(text.joined(separator: " "))\" fill=\"none\" stroke=\"\(color)\" "
                + "stroke-width=\"1.6\" stroke-opacity=\"\(fixed(opacity, 2))\"/>"
        )
    }

    /// Draws a filled rectangle.
    package mutating func rectangle(
        _ corner: (x: Double, y: Double),
        width: Double,
        height: Double,
        color: String
    ) {
        let n = SVGCanvas.number
        shapes.append(
            "<rect x=\"\(n(corner.x))\" y=\"\(n(corner.y))\" width=\"\(n(max(width, 0)))\" "
                + "height=\"\(n(max(height, 0)))\" fill=\"\(color)\"/>"
        )
    }

    /// Where text stands relative to its point.
    package enum Anchor: String {
        case start
        case middle
        case end
    }

    /// Writes a line.
    package mutating func text(
        _ text: String,
        _ point: (x: Double, y: Double),
        size: Double = 11,
        anchor: Anchor = .start,
        isBold: Bool = false
    ) {
        let weight = isBold ? " font-weight=\"bold\"" : ""
        let n = SVGCanvas.number
        shapes.append(
            "<text x=\"\(n(point.x))\" y=\"\(n(point.y))\" font-size=\"\(n(size))\" "
                + "text-anchor=\"\(anchor.rawValue)\" fill=\"#222222\"\(weight)>"
                + SVGCanvas.escaped(text) + "</text>"
        )
    }

    /// The drawing.
    package var document: String {
        let n = SVGCanvas.number
        let head =
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(n(width))\" "
            + "height=\"\(n(height))\" viewBox=\"0 0 \(n(width)) \(n(height))\" "
            + "font-family=\"sans-serif\">"
        let ground = "<rect width=\"\(n(width))\" height=\"\(n(height))\" fill=\"#ffffff\"/>"
        return ([head, ground] + shapes + ["</svg>", ""]).joined(separator: "\n")
    }
}
