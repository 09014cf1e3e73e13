import BlockCore
import ISCSISession
import ISCSIWire
import Testing

@Suite struct ISCSILoginTests {
    @Test("One request without security leads to full feature phase")
    func login_operationalOnly_isDone() {
        let initiator = ModelInitiator.loggedIn([
            "HeaderDigest": "None", "MaxBurstLength": "262144",
        ])
        #expect(initiator.events == ["loggedIn"])
        #expect(initiator.session.isFullFeature)
        let answer = initiator.outputs[0]
        #expect(answer.header.opcode == .loginResponse)
        #expect(answer.header.flags == 0x87)
        #expect(answer.header.lun & 0xFFFF == 7)
        #expect(answer.loginStatus == 0)
        #expect(answer.header.word24 == 50, "StatSN")
        #expect(answer.header.word28 == 100, "ExpCmdSN")
        #expect(answer.header.long32 >> 32 == 227, "MaxCmdSN")
        #expect(answer.pairs["TargetPortalGroupTag"] == "1")
        #expect(answer.pairs["HeaderDigest"] == "None")
        #expect(answer.pairs["MaxBurstLength"] == "262144")
        #expect(answer.pairs["MaxRecvDataSegmentLength"] == "262144")
        #expect(initiator.targets.admitted.first?.initiatorName == ModelInitiator.name)
        #expect(initiator.targets.admitted.first?.isid == 0x8000_0000_0001)
    }

    @Test("Through all stages, byte by byte")
    func login_allStages_byteByByte() {
        let initiator = ModelInitiator()
        initiator.pieceByteCount = 1
        initiator.login(
            ModelInitiator.names() + [ISCSITextPair("AuthMethod", "CHAP,None")],
            stage: .security,
            next: .operational
        )
        #expect(initiator.last.header.flags == 0x81)
        #expect(initiator.last.pairs["AuthMethod"] == "None")
        initiator.login([ISCSITextPair("InitialR2T", "No")], next: nil)
        #expect(initiator.last.header.flags == 0x04)
        #expect(initiator.last.pairs["InitialR2T"] == "No")
        initiator.login([], next: .fullFeature)
        #expect(initiator.last.header.flags == 0x87)
        #expect(initiator.session.isFullFeature)
        #expect(initiator.outputs.map(\.header.word24) == [50, 51, 52])
    }

    @Test("Text over several requests is one text")
    func login_continued_isJoined() {
        let initiator = ModelInitiator()
        let bytes = ISCSIText.bytes(ModelInitiator.names())
        initiator.send(
            initiator.loginHeader(stage: .operational, next: nil, continues: true),
            Array(bytes[..<20])
        )
        #expect(initiator.last.header.flags == 0x04)
        #expect(initiator.last.data.isEmpty)
        initiator.send(
            initiator.loginHeader(stage: .operational, next: .fullFeature),
            Array(bytes[20...])
        )
        #expect(initiator.session.isFullFeature)
    }

    /// One row for each key and each way its rule goes.
    @Test(
        "Every key is answered by its rule",
        arguments: [
            ("HeaderDigest", "CRC32C,None", "CRC32C"), ("HeaderDigest", "None,CRC32C", "None"),
            ("DataDigest", "X-new,CRC32C", "CRC32C"), ("DataDigest", "X-new", "Reject"),
            ("MaxConnections", "8", "1"), ("MaxConnections", "0", "Reject"),
            ("InitialR2T", "Yes", "Yes"), ("InitialR2T", "No", "No"), ("InitialR2T", "1", "Reject"),
            ("ImmediateData", "Yes", "Yes"), ("ImmediateData", "No", "No"),
            ("MaxRecvDataSegmentLength", "511", "Reject"),
            ("MaxRecvDataSegmentLength", "16777216", "Reject"),
            ("MaxBurstLength", "16776192", "1048576"), ("MaxBurstLength", "0x400", "1024"),
            ("FirstBurstLength", "65536", "65536"), ("FirstBurstLength", "16777215", "262144"),
            ("FirstBurstLength", "many", "Reject"), ("DefaultTime2Wait", "0", "2"),
            ("DefaultTime2Wait", "20", "20"), ("DefaultTime2Retain", "20", "0"),
            ("DefaultTime2Retain", "3601", "Reject"), ("MaxOutstandingR2T", "16", "1"),
            ("DataPDUInOrder", "No", "Yes"), ("DataSequenceInOrder", "No", "Yes"),
            ("ErrorRecoveryLevel", "2", "0"), ("ErrorRecoveryLevel", "3", "Reject"),
            ("IFMarker", "Yes", "No"), ("OFMarker", "No", "No"),
            ("X-com.example.key", "1", "NotUnderstood"),
        ]
    )
    func negotiate_anyKey_followsItsRule(_ key: String, _ offer: String, _ answer: String) {
        let initiator = ModelInitiator.loggedIn([key: offer])
        #expect(initiator.session.isFullFeature)
        let said = ISCSIText.bytes([ISCSITextPair(key, answer)])
        let text = String(decoding: initiator.last.data, as: UTF8.self)
        #expect(text.contains(String(decoding: said, as: UTF8.self)), "\(text)")
    }

    @Test("What was agreed on is in force; a first burst is at most a burst")
    func negotiate_values_areInForce() {
        let initiator = ModelInitiator.loggedIn([
            "HeaderDigest": "CRC32C", "DataDigest": "CRC32C", "ImmediateData": "No",
            "InitialR2T": "No", "MaxRecvDataSegmentLength": "1024", "MaxBurstLength": "4096",
            "FirstBurstLength": "8192",
        ])
        let parameters = initiator.session.parameters
        #expect(parameters.hasHeaderDigest && parameters.hasDataDigest)
        #expect(!parameters.allowsImmediateData && !parameters.needsInitialR2T)
        #expect(parameters.peerSegmentByteCount == 1024)
        #expect(parameters.burstByteCount == 4096)
        #expect(parameters.firstBurstByteCount == 4096)
        #expect(ISCSIParameters().firstBurstByteCount == 65_536)
    }

    private func status(_ change: (ModelInitiator) -> Void) -> UInt16? {
        let initiator = ModelInitiator()
        change(initiator)
        #expect(initiator.closeReason == .orderly)
        #expect(!initiator.session.isFullFeature)
        return initiator.last.loginStatus
    }

    @Test("Every refusal says why")
    func login_wrong_isRefusedWithItsStatus() {
        let names = ModelInitiator.names()
        #expect(status { $0.login([names[0]]) } == 0x0207)
        #expect(status { $0.login([names[2]]) } == 0x0207)
        #expect(status { $0.login([ISCSITextPair("InitiatorName", "me")]) } == 0x0200)
        #expect(
            status { $0.login(names + [ISCSITextPair("X", "1"), ISCSITextPair("X", "1")]) }
                == 0x0200
        )
        #expect(status { $0.login([names[0], ISCSITextPair("SessionType", "Odd")]) } == 0x0209)
        #expect(
            status { $0.send($0.loginHeader(stage: .operational, next: .fullFeature), [65]) }
                == 0x0200
        )
        #expect(status { $0.login(names, stage: .operational, next: .operational) } == 0x0200)
        #expect(
            status {
                var header = $0.loginHeader(stage: .operational, next: .fullFeature)
                header.byte3 = 1
                $0.send(header, ISCSIText.bytes(names))
            } == 0x0205
        )
        #expect(
            status {
                var header = $0.loginHeader(stage: .operational, next: .fullFeature)
                header.lun |= 3
                $0.send(header, ISCSIText.bytes(names))
            } == 0x020A
        )
        #expect(
            status {
                $0.login(names, stage: .operational, next: nil)
                $0.login([], stage: .security, next: .operational)
            } == 0x020B
        )
        #expect(
            status {
                $0.targets.establishment = .refused(.outOfResources)
                $0.login(names)
            } == 0x0302
        )
        #expect(
            status {
                $0.targets.admission = .refused(.notFound)
                $0.login(names)
            } == 0x0203
        )
    }

    @Test("A target that another node serves is where the answer says")
    func login_elsewhere_isRedirected() {
        let initiator = ModelInitiator()
        initiator.targets.admission = .redirected("192.0.2.7:3260,1")
        initiator.login(ModelInitiator.names())
        #expect(initiator.last.loginStatus == 0x0101)
        #expect(initiator.last.pairs["TargetAddress"] == "192.0.2.7:3260,1")
        #expect(initiator.closeReason == .orderly)
    }

    @Test("What is no login closes at once, and nothing is without end")
    func login_hostile_closes() {
        let first = ModelInitiator()
        first.send(first.command(read: 512))
        #expect(first.closeReason == .badLogin)
        #expect(first.outputs.isEmpty)

        let large = ModelInitiator()
        var header = large.loginHeader(stage: .operational, next: nil)
        header.dataByteCount = 8193
        header.encode(into: large.out)
        large.feed(large.out.slice(0, 48).array())
        #expect(large.closeReason == .tooLarge)

        let endless = ModelInitiator()
        for _ in 0..<100 where endless.closeReason == nil { endless.login([], next: nil) }
        #expect(endless.closeReason != nil)

        let long = ModelInitiator()
        let text = [UInt8](repeating: 65, count: 8192)
        for _ in 0..<8 where long.closeReason == nil {
            long.send(long.loginHeader(stage: .operational, next: nil, continues: true), text)
        }
        #expect(long.closeReason == .orderly)
        #expect(long.last.loginStatus == 0x0200)
    }

    // MARK: - Proofs

    private static let credentials = ISCSICredentials(
        user: "host",
        secret: Array("a secret of the host".utf8),
        ownUser: "cairn",
        ownSecret: Array("a secret of the target".utf8)
    )

    private func challenged(_ algorithms: String, _ credentials: ISCSICredentials) -> ModelInitiator
    {
        let initiator = ModelInitiator()
        initiator.targets.admission = .welcome(credentials)
        initiator.login(
            ModelInitiator.names() + [ISCSITextPair("AuthMethod", "CHAP,None")],
            stage: .security,
            next: nil
        )
        #expect(initiator.last.pairs["AuthMethod"] == "CHAP")
        initiator.login([ISCSITextPair("CHAP_A", algorithms)], stage: .security, next: nil)
        return initiator
    }

    private func answer(
        _ initiator: ModelInitiator,
        _ algorithm: CHAPAlgorithm,
        user: String = "host",
        secret: [UInt8] = ISCSILoginTests.credentials.secret,
        challenge own: [UInt8]? = nil
    ) {
        let pairs = initiator.last.pairs
        let response = algorithm.response(
            identifier: UInt8(pairs["CHAP_I"] ?? "") ?? 0,
            secret: secret,
            challenge: ISCSIText.binary(pairs["CHAP_C"] ?? "") ?? []
        )
        var keys = [
            ISCSITextPair("CHAP_N", user), ISCSITextPair("CHAP_R", ISCSIText.hexText(response)),
        ]
        if let own {
            keys.append(ISCSITextPair("CHAP_I", "9"))
            keys.append(ISCSITextPair("CHAP_C", ISCSIText.hexText(own)))
        }
        initiator.login(keys, stage: .security, next: .operational)
    }

    @Test("Both sides prove themselves", arguments: CHAPAlgorithm.allCases)
    func chap_mutual_succeeds(_ algorithm: CHAPAlgorithm) {
        let initiator = challenged("\(algorithm.rawValue)", Self.credentials)
        #expect(initiator.last.pairs["CHAP_A"] == "\(algorithm.rawValue)")
        answer(initiator, algorithm, challenge: [1, 2, 3])
        #expect(initiator.last.header.flags == 0x81)
        #expect(initiator.last.pairs["CHAP_N"] == "cairn")
        let proof = algorithm.response(
            identifier: 9,
            secret: Self.credentials.ownSecret,
            challenge: [1, 2, 3]
        )
        #expect(initiator.last.pairs["CHAP_R"] == ISCSIText.hexText(proof))
        initiator.login([], next: .fullFeature)
        #expect(initiator.session.isFullFeature)
    }

    @Test("SHA-256 is chosen before MD5, and other algorithms are refused")
    func chap_algorithms_strongestFirst() {
        #expect(challenged("5,6,7", Self.credentials).last.pairs["CHAP_A"] == "7")
        let other = challenged("6,8", Self.credentials)
        #expect(other.last.loginStatus == 0x0201)
        #expect(other.closeReason == .orderly)
    }

    @Test("Who does not prove itself does not get in")
    func chap_wrong_isRefused() {
        let secret = challenged("5", Self.credentials)
        answer(secret, .md5, secret: [1])
        let user = challenged("5", Self.credentials)
        answer(user, .md5, user: "guest")
        let reflected = challenged("5", Self.credentials)
        let own = ISCSIText.binary(reflected.last.pairs["CHAP_C"] ?? "") ?? []
        answer(reflected, .md5, challenge: own)
        var plain = Self.credentials
        plain.ownUser = nil
        let unable = challenged("5", plain)
        answer(unable, .md5, challenge: [1])
        var same = Self.credentials
        same.ownSecret = same.secret
        let sameSecret = challenged("5", same)
        answer(sameSecret, .md5, challenge: [1])
        let none = ModelInitiator()
        none.targets.admission = .welcome(Self.credentials)
        none.login(
            ModelInitiator.names() + [ISCSITextPair("AuthMethod", "None")],
            stage: .security,
            next: .operational
        )
        let silent = ModelInitiator()
        silent.targets.admission = .welcome(Self.credentials)
        silent.login(ModelInitiator.names(), stage: .security, next: .operational)
        let skipping = ModelInitiator()
        skipping.targets.admission = .welcome(Self.credentials)
        skipping.login(ModelInitiator.names())
        for initiator in [secret, user, reflected, unable, sameSecret, none, silent, skipping] {
            #expect(initiator.last.loginStatus == 0x0201)
            #expect(initiator.closeReason == .orderly)
            #expect(!initiator.session.isFullFeature)
            let text = String(decoding: initiator.last.data, as: UTF8.self)
            #expect(!text.contains("CHAP_R"))
        }
    }

    @Test("A proof cannot be skipped in the middle")
    func chap_halfWay_staysInSecurity() {
        let initiator = ModelInitiator()
        initiator.targets.admission = .welcome(Self.credentials)
        initiator.login(
            ModelInitiator.names() + [ISCSITextPair("AuthMethod", "CHAP")],
            stage: .security,
            next: .fullFeature
        )
        #expect(initiator.last.header.flags == 0x00)
        initiator.login([], stage: .security, next: .fullFeature)
        #expect(initiator.last.header.flags == 0x00)
        #expect(!initiator.session.isFullFeature)
    }
}
