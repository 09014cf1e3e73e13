// What nodes keep with volumes for the day on which the metadata is lost: Docs/rebuild.md.

import ControlAPI
import Foundation
import Metadata

/// The text that a node keeps with a volume and does not look into.
struct VolumeDescriptor: Codable, Sendable, Hashable {
    /// The snapshot that it was cloned from.
    struct Source: Codable, Sendable, Hashable {
        var volumeId: UInt64
        var volumeName: String
        var snapshot: String
    }

    /// A host that has it.
    struct Host: Codable, Sendable, Hashable {
        var name: String
        var readOnly: Bool
    }

    /// An image that is made of one of its snapshots.
    struct Image: Codable, Sendable, Hashable {
        var name: String
        var version: String
        var snapshot: String
        var description: String?
        var sha256: String?
        var createdAt: Date
    }

    /// The most images that are tried to be kept; fewer have room.
    static var imageCountMax: Int { 64 }
    /// The newest format; 1 had neither replicas nor hosts nor images.
    static var formatMax: Int { 2 }

    var format = formatMax
    /// When it was made.
    var createdAt: Date
    var source: Source?
    /// Its replicas: `NODE/INSTANCE`.
    var replicas: [String]?
    /// The number of that list; the highest is the one that counts.
    var generation: UInt64?
    /// How many complete replicas commit a write.
    var writeQuorum: Int?
    /// The export epoch of `hosts`; absent when nobody has it.
    var epoch: UInt64?
    var hosts: [Host]?
    var images: [Image]?

    /// What is to be kept with a volume.
    init(_ volume: VolumeRecord, hosts: [AttachmentRecord] = [], images: [ImageRecord] = []) {
        createdAt = volume.createdAt
        source = volume.source.map {
            Source(volumeId: $0.volumeID, volumeName: $0.volumeName, snapshot: $0.snapshot)
        }
        if let placements = volume.placements {
            replicas = placements.map { "\($0.node)/\($0.instance)" }
            generation = volume.placementGeneration ?? 0
            writeQuorum = volume.writeQuorum
        }
        if !hosts.isEmpty {
            epoch = volume.epoch
            self.hosts = hosts.map { Host(name: $0.host, readOnly: $0.readOnly) }
        }
        if !images.isEmpty {
            self.images = images.prefix(Self.imageCountMax).map { image in
                Image(
                    name: image.name,
                    version: image.version,
                    snapshot: image.snapshot,
                    description: image.description.isEmpty ? nil : image.description,
                    sha256: image.sha256,
                    createdAt: image.createdAt
                )
            }
        }
    }

    /// Reads what a node kept; nil when it is none of ours, or of a newer version.
    init?(_ text: String) {
        let data = Data(text.utf8)
        guard let read = try? ControlJSON.decoder().decode(Self.self, from: data),
            (1...Self.formatMax).contains(read.format)
        else { return nil }
        self = read
    }

    /// The list of replicas; nil when there is none that can be read.
    var placements: [PlacementRecord]? {
        guard let replicas, (1...APILimits.replicaCountMax).contains(replicas.count) else {
            return nil
        }
        var placements: [PlacementRecord] = []
        for text in replicas {
            let parts = text.split(separator: "/", omittingEmptySubsequences: false)
            guard parts.count == 2, let instance = UInt64(parts[1]),
                (1...APILimits.instanceMax).contains(instance), ValidName.check(String(parts[0]))
            else { return nil }
            placements.append(PlacementRecord(node: String(parts[0]), instance: instance))
        }
        guard Set(placements.map(\.node)).count == placements.count else { return nil }
        return placements
    }

    /// The text, within what a node takes: without what it can be without.
    ///
    /// What says where the volume is always has room.
    var text: String {
        var short = self
        if short.encoded.utf8.count > APILimits.descriptorByteCountMax {
            short.images = images?.map { image in
                var image = image
                image.description = nil
                return image
            }
        }
        while short.encoded.utf8.count > APILimits.descriptorByteCountMax, short.dropLast() {}
        return short.encoded
    }

    /// Leaves out one image, or then one host.
    private mutating func dropLast() -> Bool {
        if images?.popLast() != nil { return true }
        images = nil
        if hosts?.popLast() != nil { return true }
        hosts = nil
        return false
    }

    private var encoded: String {
        guard let data = try? ControlJSON.encoder().encode(self) else { return "{}" }
        return String(decoding: data, as: UTF8.self)
    }
}

extension VolumeRecord {
    /// What a node keeps with the volume when it makes it.
    var descriptor: String { VolumeDescriptor(self).text }
}
