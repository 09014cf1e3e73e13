// StorageNodeTests
