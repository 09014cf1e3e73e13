// URLs as people may see them.

import Testing
import volctl

@Suite struct ShownURLTests {
    @Test(
        "what may be secret in a URL is not shown",
        arguments: [
            ("http://host/disk.raw", "http://host/disk.raw"),
            ("http://192.168.1.5:8000/disk.raw", "http://192.168.1.5:8000/disk.raw"),
            ("https://[::1]:80/a@b.img", "https://[::1]:80/a@b.img"),
            ("https://user:secret@host/disk.raw", "https://…@host/disk.raw"),
            ("https://secret@host", "https://…@host"),
            ("https://a:sec@ret@host:80/x@y", "https://…@host:80/x@y"),
            ("https://host/x.img?X-Amz-Signature=secret&a=b", "https://host/x.img?…"),
            ("https://u:secret@host/x?sig=secret#secret", "https://…@host/x?…"),
            ("https://host?secret", "https://host?…"),
            ("https://host/x#secret", "https://host/x#…"),
            ("https://user:sec/ret@host/x", "https://…@host/x"),
            ("https://user:sec?ret@host/x", "https://…"),
            ("https://user:12/secret@host/x", "https://…@host/x"),
            ("https://user:12?secret@host/x", "https://…"),
            ("https://user:12#secret@host/x", "https://…"),
            ("https://user:/secret@host/x?sig=secret", "https://…@host/x?…"),
            ("https://host:80/x?user=a@b&sig=secret", "https://…"),
            ("https:///user:secret@host/x", "https:///…@host/x"),
            ("//user:secret@host/x", "//…@host/x"),
            ("//user:12/secret@host/", "//…@host/"),
            ("///user:secret@host/", "///…@host/"),
            ("//host/x?secret", "//host/x?…"),
            ("user:secret@host/x", "…@host/x"),
            ("https:/user:secret@host/x", "…@host/x"),
            ("/elsewhere?token=secret&to=http://host", "/elsewhere?…"),
            ("elsewhere?token=secret&to=http://host", "elsewhere?…"),
            ("https:", "https:"),
            ("https://", "https://"),
            ("ftp://user:secret@host/x", "ftp://…@host/x"),
            ("/elsewhere?token=secret", "/elsewhere?…"),
            ("", ""),
        ]
    )
    func shownURL_hidesSecrets(url: String, shown: String) {
        #expect(shownURL(url) == shown)
    }
}
