// Overwriting where there is no room: replicas are asked whether they have the blocks already.
//
// A write that is asked about is the next to get a number, and nothing is on its way to those who are
// asked; so what they answer holds when it reaches them, unless something was numbered meanwhile.
// Then they are asked again.

internal import BlockCore

/// A write for which there is no room, unless replicas have its blocks already.
struct Weighing {
    var token: UInt64
    /// The request, and which of those that its place had.
    var request: Int32
    var generation: UInt32
    /// The counter that it would have got when they were asked.
    var counter: UInt64
    /// Who was asked and has not answered.
    var asked: SlotSet
    /// Those that have all its blocks: it takes nothing of them.
    var light = SlotSet()
}

extension PrimaryMachine {
    /// Whether a write that does not find room needs any, at W complete replicas.
    func weigh(_ slot: Int32) -> Admission {
        let request = requests[Int(slot)]
        guard request.snapshot == 0, request.payload.hasBytes else { return .refused }
        guard let weighing, weighing.request == slot,
            weighing.generation == request.generation, weighing.counter == nextCounter
        else { return askForWeight(slot, request) }
        let entry = WindowEntry(range: request.range, payload: request.payload)
        let roomy = roomySlots(for: entry)
        let light = weighing.light.union(roomy).intersection(weighableSlots)
        let open = weighing.asked.intersection(weighableSlots)
        if isQuorum(light) { return .granted }
        return isQuorum(light.union(open)) ? .later : .refused
    }

    private var weighableSlots: SlotSet {
        slots { $0.isStreaming && $0.isComplete && $0.waitsForRoomSince == nil }
    }

    /// Asks those to whom nothing is on its way; once that is true of W.
    private func askForWeight(_ request: Int32, _ asking: ClientRequest) -> Admission {
        guard isQuorum(weighableSlots) else { return .refused }
        let asked = weighableSlots.intersection(slots { $0.applied + 1 == nextCounter })
        guard isQuorum(asked) else { return .later }
        var weighing = Weighing(
            token: takeToken(),
            request: request,
            generation: asking.generation,
            counter: nextCounter,
            asked: asked
        )
        if policy.defect == .overwritesAssumed {
            weighing.light = asked
            self.weighing = weighing
            return .granted
        }
        self.weighing = weighing
        for slot in peers.indices where asked.contains(slot) {
            send(.weigh(token: weighing.token, range: asking.range), to: slot)
        }
        return .later
    }

    /// A replica says how many of the blocks it does not have.
    func onWeighed(_ slot: Int, _ token: UInt64, _ blockCount: UInt32) {
        guard weighing?.token == token, weighing?.asked.contains(slot) == true else {
            ignoredCount += 1
            return
        }
        weighing?.asked.remove(slot)
        if blockCount == 0 { weighing?.light.insert(slot) }
    }

    /// Expects nothing of a replica any more.
    func forgetWeight(of slot: Int) {
        weighing?.asked.remove(slot)
        weighing?.light.remove(slot)
    }
}
