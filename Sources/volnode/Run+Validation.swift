// What `volnode run` refuses before it touches anything.

import ArgumentParser
import ControlAPI
import ProgramMain
import StorageNode

extension Run {
    func validate() throws {
        try Usage.require(name, of: "node")
        guard identity.isEmpty || identity.count == store.count else {
            throw ValidationError(
                "--identity is given \(counted(identity.count, "time")) and --store "
                    + "\(counted(store.count, "time")). Give one for each store, in the same order, "
                    + "or none."
            )
        }
        guard listenNbd != nil || listenNbdUnix != nil || initiators.iscsi != nil else {
            throw ValidationError("Give --listen-nbd, --listen-nbd-unix or --iscsi, or several.")
        }
        if tls != .off, tlsCertificates == nil, tlsPsk == nil {
            throw ValidationError("--tls \(tls.rawValue) needs --tls-certificates or --tls-psk.")
        }
        if meta != nil, admin == nil {
            throw ValidationError("--meta needs --admin, where the metadata service reaches us.")
        }
        guard lostStore.isEmpty || meta != nil else {
            throw ValidationError("--lost-store needs --meta: it is for the metadata service.")
        }
        guard listenPeer != nil || advertisePeer == nil else {
            throw ValidationError("--advertise-peer needs --listen-peer.")
        }
        guard store.count <= APILimits.nodeStoreCountMax else {
            throw ValidationError(
                "--store is given at most \(APILimits.nodeStoreCountMax) times; run another node "
                    + "for the rest."
            )
        }
        guard lostStore.count <= APILimits.nodeStoreCountMax else {
            throw ValidationError(
                "--lost-store is given at most \(APILimits.nodeStoreCountMax) times."
            )
        }
        if meta != nil, !volume.isEmpty {
            throw ValidationError(
                "--volume is for a node without --meta; in a cluster 'volctl volume create' makes "
                    + "volumes."
            )
        }
        try requireAddresses()
        try requirePeerTLS()
        try requireDistinctStores()
        try requireServed(acceptLoss)
        try mapMemory.requireMapMemory()
        if let reactors, !(1...NodeConfiguration.reactorCountMax).contains(reactors) {
            throw ValidationError("--reactors takes 1 to \(NodeConfiguration.reactorCountMax).")
        }
    }

    /// Refuses a store that is given twice, under whatever names: the second time it would seem to
    /// be in use by another process.
    private func requireDistinctStores() throws {
        var paths: [FileIdentity: String] = [:]
        for path in store {
            guard let identity = FileIdentity(of: path) else { continue }
            if let other = paths.updateValue(path, forKey: identity) {
                throw ValidationError(
                    other == path
                        ? "--store \(path) is given twice; give each store once."
                        : "--store \(other) and --store \(path) are the same; give each store once."
                )
            }
        }
    }

    /// Refuses to take the loss of a store that is not served, so that a mistyped path does not pass
    /// for an answer.
    private func requireServed(_ lossPaths: [String]) throws {
        guard let path = lossPaths.first(where: { !store.contains($0) }) else { return }
        throw ValidationError(
            "--accept-loss \(path) is none of the stores. Give a path as --store has it: "
                + "\(store.joined(separator: ", "))."
        )
    }

    /// Refuses to be told to others as something they cannot connect to.
    private func requireAddresses() throws {
        guard meta != nil else {
            guard advertiseNbd == nil, advertiseAdmin == nil else {
                throw ValidationError("--advertise-nbd and --advertise-admin need --meta.")
            }
            return
        }
        if advertiseNbd != nil, listenNbd == nil {
            throw ValidationError("--advertise-nbd needs --listen-nbd.")
        }
        if let listenNbd, listenNbd.isWildcard, advertiseNbd == nil {
            throw ValidationError(
                "With --meta hosts are told where to connect, and '\(listenNbd)' is every address of "
                    + "this machine. Add --advertise-nbd HOST:PORT, the one that they reach it at."
            )
        }
        if case .tcp(let host, let port)? = admin, advertiseAdmin == nil {
            let address = HostPort(host: host, port: UInt16(clamping: port))
            guard !address.isWildcard else {
                throw ValidationError(
                    "The metadata service is told where to connect, and '\(address)' is every address "
                        + "of this machine. Add --advertise-admin HOST:PORT, the one it reaches it at."
                )
            }
        }
    }
}
