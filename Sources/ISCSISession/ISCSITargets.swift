// What a session asks its driver during login and discovery. Rare, so it may allocate.

public import ISCSIWire

/// Who wants to log in to what.
public struct ISCSILogin: Sendable, Hashable {
    /// The initiator's name, valid.
    public var initiatorName = ""
    /// The target's name; empty for discovery.
    public var targetName = ""
    /// Whether it wants to know what there is, not to use it.
    public var isDiscovery = false
    /// The six bytes of the ISID, right-aligned.
    public var isid: UInt64 = 0

    /// Creates a login that has said nothing yet.
    public init() {}
}

/// What both sides know, and with which they prove themselves.
public struct ISCSICredentials: Sendable, Hashable {
    /// The name that the initiator says.
    public var user: String
    /// Its secret.
    public var secret: [UInt8]
    /// The name that the target says when it is asked to prove itself; nil when it cannot.
    public var ownUser: String?
    /// The target's secret; not the initiator's.
    public var ownSecret: [UInt8]

    /// Creates credentials.
    public init(user: String, secret: [UInt8], ownUser: String? = nil, ownSecret: [UInt8] = []) {
        self.user = user
        self.secret = secret
        self.ownUser = ownUser
        self.ownSecret = ownSecret
    }
}

/// What becomes of a login as far as the names go.
public enum ISCSIAdmission: Sendable, Hashable {
    /// It goes on, and must prove itself when there are credentials.
    case welcome(ISCSICredentials?)
    /// Another node serves the target: `address[:port][,group]`.
    case redirected(String)
    /// It ends.
    case refused(ISCSILoginStatus)
    /// The driver gives the connection to somebody who begins anew with the same bytes.
    case elsewhere
}

/// The end of a login that has proved itself.
public enum ISCSIEstablishment: Sendable, Hashable {
    /// The session is there; its handle is not 0.
    case established(tsih: UInt16)
    /// It ends.
    case refused(ISCSILoginStatus)
}

/// A target, for discovery.
public struct ISCSITargetEntry: Sendable, Hashable {
    /// Its name.
    public var name: String
    /// Where it is: `address:port,group`.
    public var addresses: [String]

    /// Creates an entry.
    public init(name: String, addresses: [String]) {
        self.name = name
        self.addresses = addresses
    }
}

/// What there is to log in to.
public protocol ISCSITargetSource: AnyObject {
    /// The portal group that the connection came to; 1 or more.
    var portalGroup: UInt16 { get }

    /// Judges the names of a login, once.
    func admit(_ login: ISCSILogin) -> ISCSIAdmission

    /// Makes the session of a login that has proved itself, once; an earlier session of the same
    /// initiator port ends.
    func establish(_ login: ISCSILogin) -> ISCSIEstablishment

    /// The targets that the initiator may see; with a name, that one at most.
    func targets(for login: ISCSILogin, named name: String?) -> [ISCSITargetEntry]

    /// Bytes that nobody can guess, for a challenge.
    func randomBytes(_ count: Int) -> [UInt8]
}
