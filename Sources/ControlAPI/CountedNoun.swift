// Numbers of things in sentences.

/// `1 node`, `2 nodes`.
package func counted(_ count: Int, _ noun: String) -> String {
    count == 1 ? "1 \(noun)" : "\(count) \(noun)s"
}
