// volbench: how fast a disk is, in fio's words; see Docs/volbench.md.

internal import Glibc

let arguments = Array(CommandLine.arguments.dropFirst())
exit(Program.run(arguments))
