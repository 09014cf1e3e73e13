internal import Glibc

/// The plots of a comparison: a panel per workload, a colour per target.
package struct Plots {
    private let workloads: [WorkloadComparison]
    private let targets: [NamedTarget]

    private static var columnCount: Int { 3 }
    private static var panelWidth: Double { 330 }
    private static var panelHeight: Double { 230 }
    private static var legendHeight: Double { 34 }
    /// Room beside the axes of a panel, for its labels.
    private static let margins = (left: 58.0, right: 24.0, top: 26.0, bottom: 34.0)

    /// Creates the plots of a comparison.
    package init(workloads: [WorkloadComparison], targets: [NamedTarget]) {
        self.workloads = workloads
        self.targets = targets
    }

    /// The part of a canvas that belongs to one workload: where its axes are.
    private struct Panel {
        var left: Double
        var right: Double
        var top: Double
        var bottom: Double

        func x(_ fraction: Double) -> Double { left + (right - left) * fraction }
        func y(_ fraction: Double) -> Double { bottom - (bottom - top) * fraction }
    }

    private func panel(_ index: Int) -> Panel {
        let column = Double(index % Plots.columnCount)
        let row = Double(index / Plots.columnCount)
        let x = column * Plots.panelWidth
        let y = Plots.legendHeight + row * Plots.panelHeight
        return Panel(
            left: x + Plots.margins.left,
            right: x + Plots.panelWidth - Plots.margins.right,
            top: y + Plots.margins.top,
            bottom: y + Plots.panelHeight - Plots.margins.bottom
        )
    }

    /// A canvas with a panel per workload, each with its title, and a legend above.
    private func draw(_ fill: (inout SVGCanvas, Panel, WorkloadComparison) -> Void) -> String {
        let rows = (workloads.count + Plots.columnCount - 1) / Plots.columnCount
        var canvas = SVGCanvas(
            width: Double(Plots.columnCount) * Plots.panelWidth,
            height: Plots.legendHeight + Double(rows) * Plots.panelHeight
        )
        var x = 12.0
        for (index, target) in targets.enumerated() {
            canvas.rectangle((x, 12), width: 12, height: 12, color: SVGCanvas.color(index))
            canvas.text(target.name, (x + 17, 22))
            x += 34 + Double(target.name.count) * 7
        }
        for (index, workload) in workloads.enumerated() {
            let panel = panel(index)
            canvas.text(workload.name, (panel.left, panel.top - 9), size: 12, isBold: true)
            fill(&canvas, panel, workload)
        }
        return canvas.document
    }

    // MARK: - Axes

    /// Round numbers from 0 to `greatest` or beyond.
    package static func ticks(_ greatest: Double) -> [Double] {
        guard greatest > 0 else { return [0, 1] }
        let magnitude = pow(10, floor(log10(greatest / 4)))
        let steps = [1.0, 2, 2.5, 5, 10].map { $0 * magnitude }
        let step = steps.first { $0 * 5 >= greatest } ?? 10 * magnitude
        var ticks = [0.0]
        while ticks[ticks.count - 1] < greatest { ticks.append(ticks[ticks.count - 1] + step) }
        return ticks
    }

    /// `150000` as `150k`.
    package static func short(_ value: Double) -> String {
        for (unit, suffix) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] where value >= unit {
            let scaled = value / unit
            return fixed(scaled, scaled == scaled.rounded() ? 0 : scaled < 10 ? 2 : 1) + suffix
        }
        return fixed(value, value == value.rounded() ? 0 : 1)
    }

    private func frame(_ canvas: inout SVGCanvas, _ panel: Panel, _ ticks: [Double]) {
        let top = ticks.last ?? 1
        for tick in ticks {
            let y = panel.y(tick / top)
            canvas.line((panel.left, y), (panel.right, y), color: "#dddddd")
            canvas.text(Plots.short(tick), (panel.left - 5, y + 4), size: 10, anchor: .end)
        }
        canvas.line((panel.left, panel.top), (panel.left, panel.bottom), color: "#444444")
        canvas.line((panel.left, panel.bottom), (panel.right, panel.bottom), color: "#444444")
    }

    // MARK: - Plots

    /// Operations per second: medians as bars, the middle half as error bars.
    package func bars() -> String {
        draw { canvas, panel, workload in
            let spreads = workload.samples.map { Spread($0.map(\.rate)) }
            let ticks = Plots.ticks(spreads.map(\.highQuartile).max() ?? 1)
            let top = ticks.last ?? 1
            frame(&canvas, panel, ticks)
            let slot = 1 / Double(max(spreads.count, 1))
            for (index, spread) in spreads.enumerated() where spread.median > 0 {
                let (left, right) = (
                    panel.x(slot * (Double(index) + 0.15)), panel.x(slot * (Double(index) + 0.85))
                )
                let y = panel.y(spread.median / top)
                canvas.rectangle(
                    (left, y),
                    width: right - left,
                    height: panel.bottom - y,
                    color: SVGCanvas.color(index)
                )
                let middle = (left + right) / 2
                let (low, high) = (
                    panel.y(spread.lowQuartile / top), panel.y(spread.highQuartile / top)
                )
                canvas.line((middle, low), (middle, high), color: "#111111", width: 1.5)
                for end in [low, high] {
                    canvas.line((middle - 4, end), (middle + 4, end), color: "#111111", width: 1.5)
                }
                let label = Plots.short(spread.median.rounded())
                canvas.text(label, (middle, panel.bottom + 13), size: 9, anchor: .middle)
            }
            canvas.text("IOPS", (panel.left, panel.bottom + 27), size: 10)
        }
    }

    /// How many of the operations took at most so long: both axes logarithmic, so that the slowest
    /// in a hundred thousand is as far from the slowest in ten thousand as that is from the
    /// slowest in a thousand.
    package func distributions() -> String {
        draw { canvas, panel, workload in
            let histograms = workload.samples.map { samples in
                let whole = Histogram()
                for sample in samples { whole.merge(sample.result.latencies) }
                return whole
            }
            let used = histograms.filter { $0.count > 0 }
            let least = log10(Double(used.map(\.minimum).min() ?? 1000))
            let greatest = log10(Double(used.map(\.maximum).max() ?? 1_000_000))
            let (low, high) = (floor(least), max(ceil(greatest), floor(least) + 1))
            func x(_ nanoseconds: Double) -> Double {
                panel.x((log10(max(nanoseconds, 1)) - low) / (high - low))
            }
            grid(&canvas, panel, low, high, x)
            for (index, histogram) in histograms.enumerated() where histogram.count > 0 {
                canvas.path(
                    Plots.curve(histogram).map { (x($0.nanoseconds), panel.y($0.height)) },
                    color: SVGCanvas.color(index),
                    opacity: 0.9
                )
            }
        }
    }

    /// Nines on the vertical axis: 0 at the bottom, 99.999 % at the top.
    private static var nineCount: Double { 5 }

    private static func curve(_ histogram: Histogram) -> [(nanoseconds: Double, height: Double)] {
        var points = [(nanoseconds: Double(histogram.minimum), height: 0.0)]
        var seen = 0.0
        for bin in histogram.bins {
            seen += Double(bin.count)
            let slower = 1 - seen / Double(histogram.count)
            let nines = slower > 0 ? min(-log10(slower), nineCount) : nineCount
            points.append((Double(min(bin.upperEdge, histogram.maximum)), nines / nineCount))
            if nines >= nineCount { break }
        }
        return points
    }

    private func grid(
        _ canvas: inout SVGCanvas,
        _ panel: Panel,
        _ low: Double,
        _ high: Double,
        _ x: (Double) -> Double
    ) {
        let nines = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"]
        for (index, label) in nines.enumerated() {
            let y = panel.y(Double(index) / Plots.nineCount)
            canvas.line((panel.left, y), (panel.right, y), color: "#dddddd")
            canvas.text(label, (panel.left - 4, y + 4), size: 9, anchor: .end)
        }
        let units = ["ns", "µs", "ms", "s"]
        for power in Int(low)...Int(high) {
            let position = x(pow(10, Double(power)))
            canvas.line((position, panel.top), (position, panel.bottom), color: "#dddddd")
            let unit = min(max(power, 0) / 3, units.count - 1)
            let name = "\(fixed(pow(10, Double(power - 3 * unit)), 0)) \(units[unit])"
            canvas.text(name, (position, panel.bottom + 13), size: 9, anchor: .middle)
        }
    }

    /// Operations per second over the time of a round: of each moment the median of the rounds.
    package func timelines() -> String {
        draw { canvas, panel, workload in
            let curves = workload.samples.map { Plots.medianCurve($0.map(\.result.series)) }
            let ticks = Plots.ticks(curves.joined().map(\.rate).max() ?? 1)
            let seconds = curves.joined().map(\.seconds).max() ?? 1
            let top = ticks.last ?? 1
            frame(&canvas, panel, ticks)
            for (index, curve) in curves.enumerated() {
                canvas.path(
                    curve.map { (panel.x($0.seconds / seconds), panel.y($0.rate / top)) },
                    color: SVGCanvas.color(index),
                    opacity: 0.9
                )
            }
            canvas.text("IOPS", (panel.left, panel.bottom + 27), size: 10)
            for fraction in [0.0, 0.5, 1] {
                let label = "\(fixed(seconds * fraction, 2)) s"
                canvas.text(label, (panel.x(fraction), panel.bottom + 13), size: 9, anchor: .middle)
            }
        }
    }

    /// The median of several rounds' curves, interval by interval.
    package static func medianCurve(
        _ rounds: [IntervalSeries]
    ) -> [(seconds: Double, rate: Double)] {
        // What is left behind the last whole interval says little, and much noise.
        let whole = rounds.map { series -> ArraySlice<Interval> in
            let intervals = series.intervals[...]
            guard let last = intervals.last, let before = intervals.dropLast().last,
                last.nanoseconds * 2 < before.nanoseconds
            else { return intervals }
            return intervals.dropLast()
        }
        let count = whole.map(\.count).max() ?? 0
        return (0..<count).map { index in
            let here = whole.filter { $0.count > index }.map { $0[index] }
            let milliseconds = Spread(here.map { Double($0.endMilliseconds) }).median
            return (milliseconds / 1e3, Spread(here.map(\.rate)).median)
        }
    }
}
