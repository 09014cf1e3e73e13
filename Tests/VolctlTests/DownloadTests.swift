// Images from a web server.

import ControlAPI
import Foundation
import Glibc
import TestSupport
import Testing
import volctl

@Suite struct DownloadTests {
    private func fetch(_ answer: String, limit: UInt64 = 1 << 20) async throws -> [UInt8] {
        let directory = try TestDirectory()
        let server = try CannedServer(answer: answer)
        do {
            let download = try await Download(
                "http://127.0.0.1:\(server.port)/disk.img",
                into: "\(directory.path)/new",
                byteCountMax: limit,
                progress: noProgress()
            )
            let data = FileManager.default.contents(atPath: download.path) ?? Data()
            download.remove()
            #expect(
                try FileManager.default.contentsOfDirectory(atPath: "\(directory.path)/new") == []
            )
            return Array(data)
        } catch {
            #expect(
                try FileManager.default.contentsOfDirectory(atPath: "\(directory.path)/new") == [],
                "a failed download leaves nothing"
            )
            throw error
        }
    }

    private func failure(_ answer: String, limit: UInt64 = 1 << 20) async -> CommandFailure? {
        await #expect(throws: CommandFailure.self) { _ = try await fetch(answer, limit: limit) }
    }

    @Test("a file is fetched whole")
    func init_answer_isFetched() async throws {
        let body = String(repeating: "\0", count: 10_000) + "end"
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
        #expect(try await fetch(answer) == Array(body.utf8))
    }

    @Test("downloads of imports that were killed are removed, those under way are not")
    func init_oldDownloads_areSwept() async throws {
        let directory = try TestDirectory()
        let old = try directory.file("download.999999999-a.img", [1])
        let own = try directory.file("download.\(getpid()).img", [1])
        let other = try directory.file("disk.img", [1])
        let held = try directory.file("download.999999998-b.img", [1])
        let lock = try await FileLock(path: held, seconds: 1) {}
        let server = try CannedServer(answer: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        let download = try await Download(
            "http://127.0.0.1:\(server.port)/disk.img",
            into: directory.path,
            byteCountMax: 1,
            progress: noProgress()
        )
        #expect(!Path.exists(old))
        #expect([own, other, held, download.path].allSatisfy(Path.exists))
        download.remove()
        lock.release()
    }

    @Test("no message of a download has what may be secret in its URL")
    func init_failures_showNoSecrets() async throws {
        let directory = try TestDirectory()
        let answers = [
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: http://u:secret@h/?secret\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nx",
            "",
        ]
        var urls: [String] = []
        var servers: [CannedServer] = []
        for answer in answers {
            let server = try CannedServer(answer: answer)
            urls.append("http://user:secret@127.0.0.1:\(server.port)/disk.img?sig=secret")
            servers.append(server)
        }
        // Nothing listens there, and nothing can be fetched so.
        urls += ["http://user:secret@127.0.0.1:1/x?secret", "gopher://user:secret@h/x?secret"]
        for url in urls {
            let failure = await #expect(throws: CommandFailure.self) {
                _ = try await Download(
                    url,
                    into: directory.path,
                    byteCountMax: 1000,
                    progress: noProgress()
                )
            }
            #expect(failure?.line.contains("secret") == false, "\(failure?.line ?? "")")
        }
        withExtendedLifetime(servers) {}
    }

    @Test("refusals, redirects, too much and too little are told apart")
    func init_badAnswers_areRefused() async {
        let missing = await failure("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        #expect(missing?.problem.contains("404") == true)
        let moved = await failure(
            "HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n"
        )
        #expect(moved?.problem.contains("http://evil/") == true)
        let large = await failure("HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n")
        #expect(large?.code == "download_too_large")
        let endless = await failure(
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + String(repeating: "x", count: 5000),
            limit: 1000
        )
        #expect(endless?.code == "download_too_large")
        let short = await failure("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        #expect(short?.code == "download_failed")
        let garbage = await failure("SSH-2.0-OpenSSH\r\n")
        #expect(garbage?.code == "download_failed")
    }

    @Test(
        "only web servers are asked",
        arguments: ["ftp://h/x", "file:///etc/passwd", "http://", "nbd://h/x"]
    )
    func init_otherSchemes_areRefused(url: String) async throws {
        let directory = try TestDirectory()
        #expect(Download.isURL(url))
        let failure = await #expect(throws: CommandFailure.self) {
            _ = try await Download(
                url,
                into: directory.path,
                byteCountMax: 1,
                progress: noProgress()
            )
        }
        #expect(failure?.code == "bad_url")
    }

    @Test("paths are no URLs")
    func isURL_paths_areNot() {
        for path in ["disk.img", "/a/b", "./x", "a:b", "C:x", "://x"] {
            #expect(!Download.isURL(path))
        }
    }

    @Test("zeros become holes and bytes stay where they belong")
    func sparseWriter_anyPieces_writeSame() throws {
        let directory = try TestDirectory()
        var content = [UInt8](repeating: 0, count: 300_000)
        for index in [0, 70_000, 70_001, 199_999, 299_999] { content[index] = 0xAA }
        for piece in [1, 7, 4096, 4097, 100_000, 300_000] {
            let path = "\(directory.path)/\(piece)"
            let file = try Descriptor.open(path, O_RDWR | O_CREAT)
            defer { file.close() }
            var writer = SparseWriter(file: file, chunkByteCount: 4096)
            for start in stride(from: 0, to: content.count, by: piece) {
                try writer.append(Array(content[start..<min(start + piece, content.count)]))
            }
            try writer.finish()
            #expect(FileManager.default.contents(atPath: path).map(Array.init) == content)
            #expect((Path.status(path)?.allocatedByteCount ?? .max) <= 8 * 4096)
        }
    }
}
