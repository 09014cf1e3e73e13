public import BlockCore

/// What a session wants from its driver next.
@frozen
public enum NBDEvent: Sendable, BitwiseCopyable {
    /// The input is used up; call again with more.
    case needMore
    /// Send these bytes; they stay valid until the next call into the session.
    ///
    /// There are at most ``NBDSession/nextOutputByteCountMax`` of them, as it was before the call.
    /// A driver calls ``NBDSession/next(input:)`` only while it has room for as much, which is
    /// what holds a client back that sends and never reads.
    case output(ByteRegion)
    /// Send what is unsent, do the server's side of a TLS handshake, then call
    /// ``NBDSession/onTLSEstablished()``; on failure drop the connection.
    case startTLS
    /// Make ``NBDSession/export`` ready for requests, then call ``NBDSession/onOpened()`` or
    /// ``NBDSession/onOpenRefused(_:text:)``, at once or later.
    case open
    /// Nothing to do until the driver has called back after `startTLS` or `open`; input stays
    /// where it is.
    case wait
    /// Carry out a request that is valid in every respect the protocol knows.
    ///
    /// After a WRITE the next `byteCount` bytes of the stream are its payload: the driver takes
    /// exactly these, and the session sees what follows them.
    case request(NBDRequest)
    /// The session is over; further calls repeat it.
    case close(NBDCloseReason)
}

/// Why a session ended.
@frozen
public enum NBDCloseReason: UInt8, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// The client sent ABORT; the acknowledgement is sent before closing.
    case aborted
    /// The client sent DISC; requests in flight are finished and answered before closing.
    case disconnected
    /// Client flags that were never offered.
    case unknownClientFlags
    /// An option without its magic number.
    case badOptionMagic
    /// A request without its magic number, or in the form that was not negotiated.
    case badRequestMagic
    /// An option other than EXPORT_NAME from a client without fixed newstyle.
    case optionNotAllowed
    /// Option data above ``NBDSession/optionSkipByteCountMax``, or an export name above its limit.
    case optionTooLarge
    /// More than ``NBDSession/optionCountMax`` options.
    case tooManyOptions
    /// EXPORT_NAME with a name that cannot be opened; it has no other way to refuse.
    case exportNotAvailable
    /// EXPORT_NAME where TLS is required, or after extended headers were negotiated.
    case exportNameNotAllowed
    /// Bytes behind STARTTLS that were sent in the clear, to be taken for bytes under TLS.
    case plaintextBehindStartTLS
    /// A payload above what may be called no attack.
    case payloadTooLarge

    /// Whether the client ended the session as the protocol provides.
    ///
    /// Then what is in flight is finished and sent first; otherwise the connection may be dropped at once.
    @inlinable
    public var isOrderly: Bool { self == .aborted || self == .disconnected }
}

/// What a listener demands of connections.
@frozen
public enum NBDTLSMode: UInt8, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// STARTTLS is refused. Spec: NOTLS mode.
    case off
    /// Clients may. Spec: SELECTIVETLS mode without TLS-only exports.
    case allow
    /// Nothing but STARTTLS and ABORT works before it. Spec: FORCEDTLS mode.
    case require
}
