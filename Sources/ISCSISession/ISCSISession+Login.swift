// The login: stages, names, and the answer to each request.
//
// Spec: RFC 7143, 6.3, 11.12, 11.13.

import BlockCore
import ISCSIWire

extension ISCSISession {
    /// What a login has come to.
    struct LoginState {
        var targets: (any ISCSITargetSource)?
        var names = ISCSILogin()
        /// Full feature phase has begun.
        var isDone = false
        /// The driver has not been told so.
        var isNews = false
        var stage = ISCSIStage.security
        var requestCount = 0
        var connectionID: UInt16 = 0
        var taskTag: UInt32 = 0
        /// Text of a request that goes on.
        var gathered: [UInt8] = []
        /// Keys that were negotiated: each once.
        var keys: Set<String> = []
        var isAdmitted = false
        var hasDeclared = false
        var proof = ProofState()
    }

    /// Why a login cannot go on.
    struct LoginRefusal: Error {
        var status: ISCSILoginStatus
        var pairs: [ISCSITextPair] = []
        var isElsewhere = false
    }

    // MARK: - Requests

    /// Judges the header of whatever comes before full feature phase.
    func onLoginHeader() -> ISCSIEvent? {
        // Anything else now is no iSCSI, or comes from somebody who is lost.
        guard header.opcode == .login else { return close(.badLogin) }
        login.requestCount += 1
        guard login.requestCount <= Self.loginRequestCountMax else { return close(.badLogin) }
        sink = .gather
        return nil
    }

    /// Acts on a login request whose data has come.
    func onLoginText(_ bytes: ByteRegion) -> ISCSIEvent {
        do throws(LoginRefusal) {
            try checkHeader()
            guard login.gathered.count + bytes.byteCount <= Self.textByteCountMax else {
                throw LoginRefusal(status: .initiatorError)
            }
            login.gathered += bytes.array()
            if header.continues { return loginResponse([]) }
            let whole = login.gathered
            login.gathered = []
            guard let pairs = try? ISCSIText.pairs(whole) else {
                throw LoginRefusal(status: .initiatorError)
            }
            return try onLoginPairs(pairs)
        } catch {
            // What was answered cannot be taken back.
            let isSilent = login.requestCount == 1
            return error.isElsewhere && isSilent ? close(.handedOver) : refuse(error)
        }
    }

    private var stageAsked: ISCSIStage? { ISCSIStage(rawValue: header.flags >> 2 & 0x03) }
    private var nextStageAsked: ISCSIStage? { ISCSIStage(rawValue: header.flags & 0x03) }

    private func checkHeader() throws(LoginRefusal) {
        // Version 0 is the only one.
        guard header.byte3 == 0 else { throw LoginRefusal(status: .unsupportedVersion) }
        guard let stage = stageAsked, stage != .fullFeature, !(header.continues && header.isFinal)
        else { throw LoginRefusal(status: .initiatorError) }
        let isid = header.lun >> 16
        let connectionID = UInt16(truncatingIfNeeded: header.word20 >> 16)
        if login.requestCount == 1 {
            login.names.isid = isid
            login.connectionID = connectionID
            login.taskTag = header.taskTag
            login.stage = stage
            expectedCommand = header.commandNumber
            statusNumber = header.expectedStatus
            // A second connection for a session: there is one at most.
            guard header.lun & 0xFFFF == 0 else { throw LoginRefusal(status: .noSession) }
        }
        guard isid == login.names.isid, connectionID == login.connectionID,
            header.taskTag == login.taskTag, header.lun & 0xFFFF == 0
        else { throw LoginRefusal(status: .initiatorError) }
        guard stage == login.stage else { throw LoginRefusal(status: .invalidDuringLogin) }
    }

    private func onLoginPairs(_ pairs: [ISCSITextPair]) throws(LoginRefusal) -> ISCSIEvent {
        var answer: [ISCSITextPair] = []
        var rest: [ISCSITextPair] = []
        for pair in pairs {
            if try takeName(pair) { continue }
            guard login.keys.insert(pair.key).inserted else {
                throw LoginRefusal(status: .initiatorError)
            }
            rest.append(pair)
        }
        if !login.isAdmitted { answer += try admit() }
        answer += login.stage == .security ? try prove(&rest) : []
        answer += negotiate(rest)
        if login.stage == .operational, !login.hasDeclared {
            login.hasDeclared = true
            let own = NegotiationKey.maxRecvDataSegmentLength.rawValue
            answer.append(ISCSITextPair(own, "\(Self.segmentByteCountMax)"))
        }
        guard header.isFinal else { return loginResponse(answer) }
        return try advance(answer)
    }

    /// Takes a key that says who is there; false for other keys.
    ///
    /// It is said in the beginning; libiscsi says it again behind CHAP, which is fine if it is the
    /// same. Spec: RFC 7143, 6.3.
    private func takeName(_ pair: ISCSITextPair) throws(LoginRefusal) -> Bool {
        let before = login.names
        switch pair.key {
        case "InitiatorName":
            guard ISCSIName.isValid(pair.value) else { throw LoginRefusal(status: .initiatorError) }
            login.names.initiatorName = pair.value
        case "TargetName": login.names.targetName = pair.value
        case "SessionType":
            switch pair.value {
            case "Normal": login.names.isDiscovery = false
            case "Discovery": login.names.isDiscovery = true
            default: throw LoginRefusal(status: .sessionType)
            }
        case "InitiatorAlias": break
        default: return false
        }
        guard !login.isAdmitted || before == login.names else {
            throw LoginRefusal(status: .initiatorError)
        }
        return true
    }

    /// Asks whether the names may log in.
    private func admit() throws(LoginRefusal) -> [ISCSITextPair] {
        guard let targets = login.targets else { throw LoginRefusal(status: .targetError) }
        guard !login.names.initiatorName.isEmpty,
            login.names.isDiscovery || !login.names.targetName.isEmpty
        else { throw LoginRefusal(status: .missingParameter) }
        switch targets.admit(login.names) {
        case .refused(let status): throw LoginRefusal(status: status)
        case .elsewhere: throw LoginRefusal(status: .serviceUnavailable, isElsewhere: true)
        case .redirected(let address):
            throw LoginRefusal(
                status: .movedTemporarily,
                pairs: [ISCSITextPair("TargetAddress", address)]
            )
        case .welcome(let credentials):
            login.isAdmitted = true
            login.proof.credentials = credentials
            // Who begins behind the security stage proves nothing.
            guard credentials == nil || login.stage == .security else {
                throw LoginRefusal(status: .authenticationFailure)
            }
            guard !login.names.isDiscovery else { return [] }
            return [ISCSITextPair("TargetPortalGroupTag", "\(targets.portalGroup)")]
        }
    }

    private func negotiate(_ pairs: [ISCSITextPair]) -> [ISCSITextPair] {
        pairs.compactMap { pair in
            guard let key = NegotiationKey(rawValue: pair.key) else {
                return ISCSITextPair(pair.key, "NotUnderstood")
            }
            guard login.stage == .operational else { return ISCSITextPair(pair.key, "Reject") }
            return parameters.negotiate(key, pair.value).map { ISCSITextPair(pair.key, $0) }
        }
    }

    // MARK: - Stages

    /// Goes to the stage that the initiator asks for, if it may.
    private func advance(_ answer: [ISCSITextPair]) throws(LoginRefusal) -> ISCSIEvent {
        guard let next = nextStageAsked, next.rawValue > login.stage.rawValue else {
            throw LoginRefusal(status: .initiatorError)
        }
        if login.stage == .security, !login.proof.isComplete {
            // It has to go on proving itself, if it has begun.
            guard login.proof.isUnderWay else { throw LoginRefusal(status: .authenticationFailure) }
            return loginResponse(answer)
        }
        guard next == .fullFeature else { return loginResponse(answer, next: next) }
        guard let targets = login.targets else { throw LoginRefusal(status: .targetError) }
        switch targets.establish(login.names) {
        case .refused(let status): throw LoginRefusal(status: status)
        case .established(let handle):
            parameters.settle()
            let event = loginResponse(answer, next: next, handle: handle)
            login.isDone = true
            login.isNews = true
            return event
        }
    }

    // MARK: - Responses

    private func loginResponse(
        _ pairs: [ISCSITextPair],
        next: ISCSIStage? = nil,
        handle: UInt16 = 0
    ) -> ISCSIEvent {
        let bytes = ISCSIText.bytes(pairs)
        guard bytes.count <= ISCSILimits.segmentByteCountDefault else {
            return refuse(LoginRefusal(status: .initiatorError))
        }
        var answer = loginHeader(.success)
        answer.flags = login.stage.rawValue << 2
        if let next {
            answer.flags |= 0x80 | next.rawValue
            login.stage = next
        }
        answer.lun |= UInt64(handle)
        return emitLogin(answer, bytes)
    }

    private func refuse(_ refusal: LoginRefusal) -> ISCSIEvent {
        phase = .closing
        return emitLogin(loginHeader(refusal.status), ISCSIText.bytes(refusal.pairs))
    }

    private func loginHeader(_ status: ISCSILoginStatus) -> ISCSIHeader {
        var answer = responseHeader(.loginResponse, taskTag: header.taskTag)
        answer.flags = header.flags & 0x0C
        answer.lun = header.lun & ~0xFFFF
        answer.statusField = status.rawValue
        return answer
    }

    private func emitLogin(_ header: ISCSIHeader, _ bytes: [UInt8]) -> ISCSIEvent {
        var header = header
        header.dataByteCount = UInt32(bytes.count)
        statusNumber &+= 1
        let data = gathering.slice(0, bytes.count)
        data.copy(from: bytes)
        outputByteCount = frame(header, data: data, into: output)
        return emit()
    }
}

extension ISCSIHeader {
    /// Status class and detail of a login response: bytes 36 and 37.
    fileprivate var statusField: UInt16 {
        get { UInt16(truncatingIfNeeded: long32 >> 16) }
        set { long32 = long32 & ~0xFFFF_FFFF | UInt64(newValue) << 16 }
    }
}
