"""The Open Inference Protocol v2 and KServe's V1: other names for what PellucidService does.

A request becomes messages of PellucidService, one for each image and each of its methods that is
needed; the engine packs them into batches like anyone's. Nothing here runs a network.
"""
