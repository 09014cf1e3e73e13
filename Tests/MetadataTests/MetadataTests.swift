// MetadataTests
