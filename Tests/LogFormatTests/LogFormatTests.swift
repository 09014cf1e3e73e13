// LogFormatTests
