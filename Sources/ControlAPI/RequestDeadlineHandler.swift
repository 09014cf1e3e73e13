// The deadlines of a request's arrival and of its answer's departure. The idle timeout does not see
// a client that sends a byte now and then, nor one that does not read; a few hundred of those would
// take every connection there is.

import NIOCore
import NIOHTTPTypes

/// Closes a connection on which a request does not arrive whole in time, or an answer is not taken.
///
/// The request deadline runs from the connection's start, and anew from each request's head until
/// its end, whether or not it is answered before. Once every request that arrived is answered, the
/// idle deadline runs until the next head. While a request that arrived whole is being answered
/// none of these runs: a follower of events stays for as long as it likes.
///
/// The write deadline runs while more is to be written than the channel takes, and anew whenever
/// the kernel has taken some of it. Not covered: a client that reads a little now and then.
final class RequestDeadlineHandler: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private let request: TimeAmount
    private let idle: TimeAmount
    private let progress: TimeAmount
    private var writeDeadline: Scheduled<Void>?
    private var deadline: Scheduled<Void>?
    /// Requests that arrived whole, less whole answers: −1 when the request that is arriving was
    /// answered before its end, as one to a path that does not exist is.
    private var unansweredCount = 0

    /// Creates the handler of one connection.
    ///
    /// - Parameters:
    ///   - request: How long a request may take to arrive whole after its head, and the first
    ///     head after the connection's start.
    ///   - idle: How long after an answer the next request's head may take.
    ///   - progress: How long the client may take nothing of an answer.
    init(request: TimeAmount, idle: TimeAmount, progress: TimeAmount) {
        self.request = request
        self.idle = idle
        self.progress = progress
    }

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { start(request, context) }
    }

    func handlerRemoved(context: ChannelHandlerContext) { stopAll() }

    func channelActive(context: ChannelHandlerContext) {
        start(request, context)
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        stopAll()
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head:
            start(request, context)
        case .body:
            break
        case .end:
            unansweredCount += 1
            if unansweredCount > 0 { stop() } else { start(idle, context) }
        }
        context.fireChannelRead(data)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) {
            unansweredCount -= 1
            // One that runs is that of a request on its way: it goes on until that has arrived.
            if unansweredCount == 0, deadline == nil { start(idle, context) }
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

    private func stopAll() {
        stop()
        writeDeadline?.cancel()
        writeDeadline = nil
    }

    // MARK: - Progress of answers

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        writeDeadline?.cancel()
        writeDeadline = nil
        if !context.channel.isWritable { watchWrites(context) }
        context.fireChannelWritabilityChanged()
    }

    private func watchWrites(_ context: ChannelHandlerContext) {
        let before = bufferedByteCount(context)
        let context = NIOLoopBound(context, eventLoop: context.eventLoop)
        let handler = NIOLoopBound(self, eventLoop: context.value.eventLoop)
        writeDeadline = context.value.eventLoop.scheduleTask(in: progress) {
            let context = context.value
            let handler = handler.value
            guard handler.bufferedByteCount(context) < before else {
                return context.close(promise: nil)
            }
            handler.watchWrites(context)
        }
    }

    /// Bytes that the kernel has not taken yet.
    private func bufferedByteCount(_ context: ChannelHandlerContext) -> Int {
        (try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    }
}
