"""What a reconstruction is measured by: likelihoods, features, a discriminator."""
