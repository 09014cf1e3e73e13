// The library's choices as options of the command line.

public import ArgumentParser
public import Reactor
public import StorageNode

extension Preallocation: ExpressibleByArgument {}
extension EngineChoice: ExpressibleByArgument {}
extension TLSPolicy: ExpressibleByArgument {}
