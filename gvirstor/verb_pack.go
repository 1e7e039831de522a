package main

func packCommand() *command {
	return volumeJob("pack", "Fills holes, so that the volume can be handed back", "defrag", `Fills holes between used chunks, component after component, so that stop can
hand the volume back to FreeBSD's kernel class.`, "gvirstor pack mydata")
}

func rebalanceCommand() *command {
	return volumeJob("rebalance", "Makes all components equally full", "balance", `Moves chunks until all components are equally full, such as after an add.`,
		"gvirstor rebalance mydata")
}

func reclaimCommand() *command {
	return volumeJob("reclaim", "Frees the chunks that hold only zeros", "trim fstrim sparsify", `Frees the chunks that hold nothing but zeros. What is written meanwhile stays.`,
		"gvirstor reclaim -n mydata")
}
