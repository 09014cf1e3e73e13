import Testing

/// Live servers under foreign clients: the programs as users start them, over real sockets.
///
/// Everything here starts processes, so the suites run one after the other. Each process, file
/// and socket belongs to one test and goes with it; every wait has a limit.
@Suite("Conformance", .serialized)
enum Conformance {}
