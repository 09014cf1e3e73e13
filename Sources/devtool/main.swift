// The project's scripts, in the project's language.

import Foundation

let arguments = Array(CommandLine.arguments.dropFirst())
let usage = """
    usage: devtool sim store ...         run the simulation of a store (devtool sim --help)
           devtool sim replication ...   run the simulation of a shard's replicas
           devtool fuzz nbd|peer ...     mutate what comes from a network (devtool fuzz --help)
    """
switch arguments.first {
case "fuzz": exit(runFuzz(arguments: Array(arguments.dropFirst())))
case "sim": exit(SimulationCommand.run(Array(arguments.dropFirst())))
default:
    FileHandle.standardError.write(Data((usage + "\n").utf8))
    exit(arguments.first == "--help" ? 0 : 2)
}
