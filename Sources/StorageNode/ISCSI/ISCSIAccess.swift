// Who may use which volume over iSCSI, and how both sides prove who they are.

public import ISCSISession

/// What an initiator is granted.
public struct ISCSIGrant: Sendable, Hashable {
    /// What it has to prove itself with; nil for nothing.
    public var credentials: ISCSICredentials?

    /// Creates a grant.
    public init(credentials: ISCSICredentials?) { self.credentials = credentials }
}

/// One rule: initiators, volumes, and the credentials.
public struct ISCSIRule: Sendable, Hashable {
    /// The initiator's name; nil for every initiator.
    public var initiator: String?
    /// The volume's name; nil for every volume.
    public var volume: String?
    /// What it has to prove itself with; nil for nothing.
    public var credentials: ISCSICredentials?

    /// Creates a rule.
    public init(initiator: String?, volume: String?, credentials: ISCSICredentials?) {
        self.initiator = initiator
        self.volume = volume
        self.credentials = credentials
    }
}

/// The rules of a node, in order: the first that fits a login is the one that counts.
public struct ISCSIAccess: Sendable, Hashable {
    /// The rules; a login that none fits is refused.
    public var rules: [ISCSIRule]

    /// Creates rules.
    public init(rules: [ISCSIRule]) { self.rules = rules }

    /// Everybody may use every volume that is exported.
    public static var everybody: Self {
        Self(rules: [ISCSIRule(initiator: nil, volume: nil, credentials: nil)])
    }

    /// What an initiator is granted; nil when it may not know that the volume is there.
    func grant(to initiator: String, volume: String) -> ISCSIGrant? {
        rules.first { rule in
            (rule.initiator == nil || rule.initiator == initiator)
                && (rule.volume == nil || rule.volume == volume)
        }.map { ISCSIGrant(credentials: $0.credentials) }
    }

    /// The first rule for an initiator: it says what one has to prove itself with before it is told
    /// what there is for it.
    func rule(for initiator: String) -> ISCSIRule? {
        rules.first { $0.initiator == nil || $0.initiator == initiator }
    }
}
