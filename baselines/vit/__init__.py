"""Vision transformers as anytime methods: a head between the blocks, and delays on the residual stream."""
