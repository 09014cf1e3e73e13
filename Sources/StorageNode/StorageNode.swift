// StorageNode
