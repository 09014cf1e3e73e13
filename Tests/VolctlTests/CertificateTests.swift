import ArgumentParser
import Foundation
import TestSupport
import Testing
import volctl

@Suite("Certificates of nodes") struct CertificateTests {
    private func openssl(_ arguments: String...) throws -> (code: Int32?, text: String) {
        let result = try runProgram("/usr/bin/openssl", arguments, within: 20)
        return (result.exitCode, result.output + result.errorOutput)
    }

    private func mode(_ path: String) throws -> Int {
        let found = try FileManager.default.attributesOfItem(atPath: path)
        return try #require(found[.posixPermissions] as? Int)
    }

    @Test("OpenSSL finds in them what links want", .enabled(if: areInstalled("openssl")))
    func issue_isAsDocumented() throws {
        let directory = try TestDirectory()
        let files = CertificateFiles(directory: "\(directory.path)/certs")
        #expect(!files.hasAuthority)
        try files.issue("n-1.a_b", by: try files.authority(), days: 30)
        let node = files.nodeDirectory("n-1.a_b")
        for purpose in ["sslserver", "sslclient"] {
            let result = try openssl(
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-verify_hostname",
                "n-1.a_b.node.cairn",
                "-CAfile",
                "\(node)/ca-cert.pem",
                "\(node)/node-cert.pem"
            )
            #expect(result.code == 0, "\(result.text)")
        }
        let text = try openssl("x509", "-in", "\(node)/node-cert.pem", "-noout", "-text").text
        #expect(text.contains("DNS:n-1.a_b.node.cairn"))
        #expect(text.contains("TLS Web Server Authentication, TLS Web Client Authentication"))
        #expect(text.contains("CA:FALSE"))
        let ends = try openssl(
            "x509",
            "-in",
            "\(node)/node-cert.pem",
            "-noout",
            "-checkend",
            "\(31 * 86_400)"
        )
        #expect(ends.code == 1)
        #expect(try mode(files.authorityKeyFile) == 0o600)
        #expect(try mode("\(node)/node-key.pem") == 0o600)
    }

    @Test("The authority stays, and a node's certificate is made anew")
    func issue_again_isByTheSameAuthority() throws {
        let directory = try TestDirectory()
        let files = CertificateFiles(directory: directory.path)
        try files.issue("n1", by: try files.authority(), days: 1)
        let authority = try Data(contentsOf: URL(fileURLWithPath: files.authorityFile))
        let first = try Data(contentsOf: URL(fileURLWithPath: files.nodeFile("n1")))
        try files.issue("n1", by: try files.authority(), days: 1)
        #expect(try Data(contentsOf: URL(fileURLWithPath: files.authorityFile)) == authority)
        #expect(try Data(contentsOf: URL(fileURLWithPath: files.nodeFile("n1"))) != first)
        let copy = "\(files.nodeDirectory("n1"))/ca-cert.pem"
        #expect(try Data(contentsOf: URL(fileURLWithPath: copy)) == authority)
    }

    @Test("An authority that cannot be used is left as it is")
    func authority_damaged_isRefused() throws {
        let directory = try TestDirectory()
        let files = CertificateFiles(directory: directory.path)
        _ = try files.authority()
        let other = CertificateFiles(directory: "\(directory.path)/other")
        _ = try other.authority()
        // The key of another authority, no key, and no certificate.
        let key = try Data(contentsOf: URL(fileURLWithPath: other.authorityKeyFile))
        for content in [key, Data("nonsense".utf8)] {
            try content.write(to: URL(fileURLWithPath: files.authorityKeyFile))
            #expect(throws: CommandFailure.self) { try files.authority() }
            #expect(try Data(contentsOf: URL(fileURLWithPath: files.authorityKeyFile)) == content)
        }
        try FileManager.default.removeItem(atPath: files.authorityFile)
        #expect(throws: CommandFailure.self) { try files.authority() }
    }

    @Test("What is no node or no number of days is wrong usage")
    func create_wrongUsage_isRefused() {
        for arguments in [
            ["certs", "create", "n1"], ["certs", "create", "--out", "x"],
            ["certs", "create", "--out", "x", "n1,DNS:n2"],
            ["certs", "create", "--out", "x", "--days", "0", "n1"],
            ["certs", "create", "--out", "", "n1"],
        ] {
            #expect(throws: (any Error).self) { try Volctl.parseAsRoot(arguments) }
        }
    }
}
