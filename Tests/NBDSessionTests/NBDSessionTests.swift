// NBDSessionTests
