// What a node tells of itself, checked once at the edge.

extension NodeRegistration {
    /// Refuses what a node cannot have meant.
    func check() throws(ControlError) {
        _ = try APIEndpoint(adminEndpoint)
        if let nbdEndpoint { _ = try APIEndpoint(nbdEndpoint) }
        let texts = [adminEndpoint, nbdEndpoint, nbdUnixPath, version, machineID, peerEndpoint]
            .compactMap(\.self)
        guard texts.allSatisfy({ $0.utf8.count <= APILimits.endpointByteCountMax }) else {
            throw ControlError(
                .invalidArgument,
                "An endpoint or path has at most \(APILimits.endpointByteCountMax) bytes."
            )
        }
        try requireStoreIdentity(storeIdentity)
        try space.check()
        try stores?.check()
        guard lostStores?.count ?? 0 <= APILimits.nodeStoreCountMax else {
            throw ControlError(
                .invalidArgument,
                "A node tells of at most \(APILimits.nodeStoreCountMax) lost stores."
            )
        }
        for identity in lostStores ?? [] { try requireStoreIdentity(identity) }
        if let peerEndpoint { _ = try APIEndpoint(peerEndpoint) }
        let domain = [failureDomain?.zone, failureDomain?.rack, failureDomain?.host]
        for name in domain.compactMap(\.self) {
            try ValidName.require(name, of: "failure domain")
        }
    }
}

extension NodeHeartbeat {
    /// Refuses what a node cannot have meant.
    func check() throws(ControlError) {
        try space.check()
        try stores?.check()
        guard services?.count ?? 0 <= APILimits.nodeServiceCountMax else {
            throw ControlError(
                .invalidArgument,
                "A node tells of at most \(APILimits.nodeServiceCountMax) volumes that it serves."
            )
        }
        for service in services ?? [] { try service.check() }
    }
}

extension NodeServiceStatus {
    /// Refuses what a node cannot have meant.
    fileprivate func check() throws(ControlError) {
        try ValidName.require(name, of: "volume")
        let texts = [stopReason, move?.replica.resync] + replicas.map(\.resync)
        guard replicas.count <= 2 * APILimits.replicaCountMax,
            texts.allSatisfy({ ($0 ?? "").utf8.count <= APILimits.endpointByteCountMax })
        else {
            throw ControlError(
                .invalidArgument,
                "What a node says of a volume has at most \(2 * APILimits.replicaCountMax) "
                    + "replicas and texts of \(APILimits.endpointByteCountMax) bytes."
            )
        }
        for replica in replicas + (move.map { [$0.replica] } ?? []) {
            try ValidName.require(replica.node, of: "node")
        }
    }
}

extension [NodeStore] {
    /// Refuses what a node cannot have meant.
    fileprivate func check() throws(ControlError) {
        guard count <= APILimits.nodeStoreCountMax else {
            throw ControlError(
                .invalidArgument,
                "A node tells of at most \(APILimits.nodeStoreCountMax) stores."
            )
        }
        for store in self {
            guard store.path.utf8.count <= APILimits.endpointByteCountMax else {
                throw ControlError(
                    .invalidArgument,
                    "The path of a store has at most \(APILimits.endpointByteCountMax) bytes here."
                )
            }
            if let identity = store.identity { try requireStoreIdentity(identity) }
            try store.space.check()
            try store.failures?.check()
        }
    }
}

extension StoreFailures {
    /// Refuses what a node cannot have meant.
    fileprivate func check() throws(ControlError) {
        if let volume { try ValidName.require(volume, of: "volume") }
        guard requestCount <= APILimits.failedRequestCountMax else {
            throw ControlError(
                .invalidArgument,
                "A node tells of at most \(APILimits.failedRequestCountMax) failed requests."
            )
        }
    }
}

private func requireStoreIdentity(_ text: String) throws(ControlError) {
    guard text.utf8.count == 32, text.allSatisfy(\.isHexDigit) else {
        throw ControlError(.invalidArgument, "A store identity is written as 32 hex digits.")
    }
}

extension StoreSpaceUsage {
    /// Refuses numbers that no store has; how they go together is the node's business.
    fileprivate func check() throws(ControlError) {
        let byteCounts = [
            capacityByteCount, liveByteCount, availableByteCount, garbageByteCount,
        ]
        guard byteCounts.allSatisfy({ $0 <= APILimits.nodeByteCountMax }) else {
            throw ControlError(
                .invalidArgument,
                "A node has at most \(ByteSize(byteCount: APILimits.nodeByteCountMax))."
            )
        }
        guard (0...100).contains(fullestPercent ?? 0) else {
            throw ControlError(.invalidArgument, "A store is used to 0 to 100 percent.")
        }
    }
}
