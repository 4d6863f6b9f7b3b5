"""Runtime adapters: tensors in, tensors out, one vendor a file.

`edgedet.registry.RUNTIMES` names them; `shell` holds the contract and the checks that they share.
"""
