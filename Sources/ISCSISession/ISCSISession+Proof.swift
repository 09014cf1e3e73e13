// The security stage: who proves what to whom.
//
// CHAP: the initiator names algorithms, the target chooses one and sends a challenge, the initiator
// answers it and may send a challenge of its own. A challenge that comes back is refused: answering
// it would answer for the initiator. Spec: RFC 7143, 12.1; RFC 1994.

import ISCSIWire

extension ISCSISession {
    /// How far a proof has come.
    struct ProofState {
        enum Step {
            /// Nothing was chosen.
            case method
            /// CHAP was chosen; its algorithm comes next.
            case algorithm
            /// The challenge is out.
            case challenged
            /// Done, or not needed.
            case done
        }

        var credentials: ISCSICredentials?
        var step = Step.method
        var algorithm = CHAPAlgorithm.sha256
        var identifier: UInt8 = 0
        var challenge: [UInt8] = []

        var isComplete: Bool { step == .done || (step == .method && credentials == nil) }
        var isUnderWay: Bool { step == .algorithm || step == .challenged }
    }

    /// Bytes of a challenge: as many as the longer response.
    private static var challengeByteCount: Int { 32 }
    /// Bytes of an initiator's challenge at most; spec: RFC 7143, 12.1.3.
    private static var challengeByteCountMax: Int { 1024 }

    /// Takes the keys of the security stage out of `pairs`; the answers.
    func prove(_ pairs: inout [ISCSITextPair]) throws(LoginRefusal) -> [ISCSITextPair] {
        var keys: [String: String] = [:]
        pairs.removeAll { pair in
            guard pair.key == "AuthMethod" || pair.key.hasPrefix("CHAP_") else { return false }
            keys[pair.key] = pair.value
            return true
        }
        var answer: [ISCSITextPair] = []
        if let methods = keys["AuthMethod"] {
            answer.append(ISCSITextPair("AuthMethod", try choose(methods)))
        }
        if let algorithms = keys["CHAP_A"] { answer += try challenge(algorithms) }
        if keys["CHAP_N"] != nil || keys["CHAP_R"] != nil { answer += try verify(keys) }
        return answer
    }

    private func choose(_ methods: String) throws(LoginRefusal) -> String {
        guard login.proof.step == .method else { throw LoginRefusal(status: .initiatorError) }
        let offered = methods.split(separator: ",")
        if login.proof.credentials == nil {
            guard offered.contains("None") else {
                throw LoginRefusal(status: .authenticationFailure)
            }
            login.proof.step = .done
            return "None"
        }
        guard offered.contains("CHAP") else { throw LoginRefusal(status: .authenticationFailure) }
        login.proof.step = .algorithm
        return "CHAP"
    }

    private func challenge(_ algorithms: String) throws(LoginRefusal) -> [ISCSITextPair] {
        guard login.proof.step == .algorithm, let targets = login.targets else {
            throw LoginRefusal(status: .initiatorError)
        }
        let offered = algorithms.split(separator: ",").compactMap { UInt8($0) }
        // The stronger one, whatever the initiator's order is.
        guard
            let algorithm = [CHAPAlgorithm.sha256, .md5].first(where: {
                offered.contains($0.rawValue)
            })
        else { throw LoginRefusal(status: .authenticationFailure) }
        let random = targets.randomBytes(1 + Self.challengeByteCount)
        precondition(random.count == 1 + Self.challengeByteCount, "as many bytes as were asked for")
        login.proof.algorithm = algorithm
        login.proof.identifier = random[0]
        login.proof.challenge = Array(random[1...])
        login.proof.step = .challenged
        return [
            ISCSITextPair("CHAP_A", "\(algorithm.rawValue)"),
            ISCSITextPair("CHAP_I", "\(random[0])"),
            ISCSITextPair("CHAP_C", ISCSIText.hexText(login.proof.challenge)),
        ]
    }

    private func verify(_ keys: [String: String]) throws(LoginRefusal) -> [ISCSITextPair] {
        let proof = login.proof
        guard proof.step == .challenged, let credentials = proof.credentials,
            let user = keys["CHAP_N"], let response = keys["CHAP_R"].flatMap(ISCSIText.binary)
        else { throw LoginRefusal(status: .initiatorError) }
        let expected = proof.algorithm.response(
            identifier: proof.identifier,
            secret: credentials.secret,
            challenge: proof.challenge
        )
        let isRight = CHAPAlgorithm.isEqual(response, expected)
        guard isRight, user == credentials.user else {
            throw LoginRefusal(status: .authenticationFailure)
        }
        let answer = try proveOurselves(keys, credentials)
        login.proof.step = .done
        return answer
    }

    /// Answers the initiator's challenge, if there is one.
    private func proveOurselves(
        _ keys: [String: String],
        _ credentials: ISCSICredentials
    ) throws(LoginRefusal) -> [ISCSITextPair] {
        guard keys["CHAP_I"] != nil || keys["CHAP_C"] != nil else { return [] }
        guard let identifier = keys["CHAP_I"].flatMap(ISCSIText.number), identifier < 256,
            let challenge = keys["CHAP_C"].flatMap(ISCSIText.binary),
            challenge.count <= Self.challengeByteCountMax
        else { throw LoginRefusal(status: .initiatorError) }
        guard let user = credentials.ownUser, challenge != login.proof.challenge,
            credentials.ownSecret != credentials.secret
        else { throw LoginRefusal(status: .authenticationFailure) }
        let response = login.proof.algorithm.response(
            identifier: UInt8(identifier),
            secret: credentials.ownSecret,
            challenge: challenge
        )
        return [
            ISCSITextPair("CHAP_N", user),
            ISCSITextPair("CHAP_R", ISCSIText.hexText(response)),
        ]
    }
}
