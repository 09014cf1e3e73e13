// The deadline of a request's arrival. The idle timeout does not see a client that sends a byte now
// and then; a few hundred of those would take every connection there is.

import NIOCore
import NIOHTTPTypes

/// Closes a connection on which a request does not arrive whole in time.
///
/// Time runs from the connection's start, and again from the end of the last answer; then it
/// includes the time that a connection may wait for its next request. While a request is being
/// answered none runs: a follower of events stays for as long as it likes.
final class RequestDeadlineHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private let request: TimeAmount
    private let idle: TimeAmount
    private var deadline: Scheduled<Void>?
    /// Requests that arrived whole and have no whole answer yet.
    private var unansweredCount = 0

    /// Creates the handler of one connection.
    ///
    /// - Parameters:
    ///   - request: How long a request may take to arrive whole.
    ///   - idle: How long the connection may wait for the next one.
    init(request: TimeAmount, idle: TimeAmount) {
        self.request = request
        self.idle = idle
    }

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { start(request, context) }
    }

    func handlerRemoved(context: ChannelHandlerContext) { stop() }

    func channelActive(context: ChannelHandlerContext) {
        start(request, context)
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        stop()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head:
            // The rest of it; a request behind others has no deadline yet.
            if deadline == nil { start(request, context) }
        case .body:
            break
        case .end:
            stop()
            unansweredCount += 1
        }
        context.fireChannelRead(data)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) {
            unansweredCount = max(0, unansweredCount - 1)
            if unansweredCount == 0, deadline == nil { start(idle + request, context) }
        }
        context.write(data, promise: promise)
    }

    private func start(_ time: TimeAmount, _ context: ChannelHandlerContext) {
        stop()
        let context = NIOLoopBound(context, eventLoop: context.eventLoop)
        deadline = context.value.eventLoop.scheduleTask(in: time) {
            context.value.close(promise: nil)
        }
    }

    private func stop() {
        deadline?.cancel()
        deadline = nil
    }
}
