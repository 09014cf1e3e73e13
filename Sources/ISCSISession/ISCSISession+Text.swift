// Text requests in full feature phase: SendTargets, and what may be declared anew.
//
// Spec: RFC 7143, 11.10, 11.11, appendix C.

import BlockCore
import ISCSIWire

extension ISCSISession {
    /// A text request over several PDUs, and an answer over several.
    struct TextState {
        /// What has come of a request that goes on.
        var gathered: [UInt8] = []
        /// What is left of an answer.
        var rest: [UInt8] = []
        /// The tag under which the rest is asked for.
        var tag: UInt32 = 1
    }

    /// Answers a text request whose data has come.
    func onText(_ bytes: ByteRegion) -> ISCSIEvent {
        let isNew = header.word20 == ISCSILimits.noTag
        if isNew {
            text.rest = []
            text.gathered = []
        } else if header.word20 != text.tag {
            return reject(.protocolError)
        }
        guard !(header.continues && header.isFinal),
            text.gathered.count + bytes.byteCount <= Self.textByteCountMax
        else { return reject(.protocolError) }
        text.gathered += bytes.array()
        if header.continues { return emitText([], isLast: false) }
        let whole = text.gathered
        text.gathered = []
        if !isNew, whole.isEmpty, !text.rest.isEmpty { return emitRest() }
        guard let answer = textAnswer(whole) else { return reject(.protocolError) }
        text.rest = ISCSIText.bytes(answer)
        return emitRest()
    }

    private func emitRest() -> ISCSIEvent {
        let byteCount = min(
            text.rest.count,
            Self.echoByteCountMax,
            Int(parameters.peerSegmentByteCount)
        )
        let part = Array(text.rest.prefix(byteCount))
        text.rest.removeFirst(byteCount)
        return emitText(part, isLast: text.rest.isEmpty)
    }

    private func emitText(_ bytes: [UInt8], isLast: Bool) -> ISCSIEvent {
        var answer = responseHeader(.textResponse, taskTag: header.taskTag)
        let continues = !isLast && !text.rest.isEmpty
        answer.flags = isLast ? 0x80 : continues ? 0x40 : 0
        answer.lun = header.lun
        answer.word20 = isLast ? ISCSILimits.noTag : text.tag
        answer.dataByteCount = UInt32(bytes.count)
        statusNumber &+= 1
        let data = gathering.slice(0, bytes.count)
        data.copy(from: bytes)
        outputByteCount = frame(answer, data: data, into: output)
        return emit()
    }

    /// What a text is answered with; nil for what is no text.
    private func textAnswer(_ bytes: [UInt8]) -> [ISCSITextPair]? {
        guard let pairs = try? ISCSIText.pairs(bytes) else { return nil }
        var answer: [ISCSITextPair] = []
        var seen: Set<String> = []
        for pair in pairs {
            // A key twice is an error; a list of all targets for each would be long.
            guard seen.insert(pair.key).inserted else { return nil }
            switch pair.key {
            case "SendTargets": answer += sendTargets(pair.value)
            case NegotiationKey.maxRecvDataSegmentLength.rawValue:
                let reply = parameters.negotiate(.maxRecvDataSegmentLength, pair.value)
                if let reply { answer.append(ISCSITextPair(pair.key, reply)) }
            default:
                let isKnown = NegotiationKey(rawValue: pair.key) != nil
                answer.append(ISCSITextPair(pair.key, isKnown ? "Reject" : "NotUnderstood"))
            }
        }
        return answer
    }

    /// The targets that an initiator may see.
    ///
    /// In a normal session it may ask for its own target only. Spec: RFC 7143, appendix C.
    private func sendTargets(_ value: String) -> [ISCSITextPair] {
        guard let targets = login.targets else { return [] }
        let own = login.names.targetName
        if !login.names.isDiscovery, value == "All" || (!value.isEmpty && value != own) {
            return [ISCSITextPair("SendTargets", "Reject")]
        }
        if login.names.isDiscovery, value.isEmpty {
            return [ISCSITextPair("SendTargets", "Reject")]
        }
        let name = value == "All" ? nil : value.isEmpty ? own : value
        return targets.targets(for: login.names, named: name).flatMap { entry in
            [ISCSITextPair("TargetName", entry.name)]
                + entry.addresses.map { ISCSITextPair("TargetAddress", $0) }
        }
    }
}
