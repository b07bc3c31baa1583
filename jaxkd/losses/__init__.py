"""Distillation losses: pure functions on arrays, unreduced over the batch.

Predictions first, targets second, options by keyword; no gradient is stopped
but where a docstring says so. All of it is listed in docs/losses.md, with what
other implementations do differently.
"""

from jaxkd.losses.adversarial import (
  gradient_penalty,
  reverse_gradient,
  wasserstein_critic,
)
from jaxkd.losses.features import (
  activation_boundary,
  attention_transfer,
  channel_wise,
  cosine,
  factor_transfer,
  flow_of_solution,
  hierarchical_context,
  hint,
  log_sum,
  masked_imitation,
  maximum_mean_discrepancy,
  neuron_selectivity,
  overhaul,
  overhaul_margin,
  pearson_feature,
)
from jaxkd.losses.information import (
  contrastive,
  contrastive_normalizer,
  info_nce,
  variational_information,
)
from jaxkd.losses.regression import squared_error, teacher_bounded
from jaxkd.losses.relations import (
  correlation_congruence,
  inter_channel_correlation,
  pairwise_affinity,
  probabilistic_transfer,
  rkd_angle,
  rkd_distance,
  similarity_preserving,
  triplet,
  triplet_votes,
)
from jaxkd.losses.responses import (
  binary_cross_entropy,
  binary_kl,
  cross_entropy,
  decoupled_kl,
  dist,
  jensen_shannon,
  kl,
  logit_mse,
  multi_level_logits,
  noisy_logit_mse,
  permuted_soft_cross_entropy,
  probability_mse,
  pseudo_label,
  reverse_kl,
  skewed_kl,
  skewed_reverse_kl,
  soft_cross_entropy,
  standardize,
  top_k_kl,
  total_variation,
  universal_logit_distance,
  virtual_teacher,
  weighted_soft_labels,
)
from jaxkd.losses.sampled import sampled_reverse_kl
from jaxkd.losses.sequences import ctc
from jaxkd.losses.targets import (
  confidence_weights,
  error_weights,
  fuse_specialists,
  geometric_mean,
  majority_vote,
  mean_logits,
  mean_probabilities,
  permute_dark_knowledge,
  teacher_confidence,
  teacher_is_correct,
)

# Losses whose labels may be probabilities of the classes, as of mixtures.
OF_PROBABILITIES = (cross_entropy,)
# How many examples a batch needs, for losses that compare them: of fewer they,
# or what they compare, are the same whatever the student does.
LEAST = {
  dist: 3,
  rkd_distance: 3,
  rkd_angle: 3,
  similarity_preserving: 2,
  probabilistic_transfer: 2,
  correlation_congruence: 2,
  info_nce: 2,
  triplet: 3,
  triplet_votes: 3,
}
# Losses of logits whose sigmoids, and not whose softmax, are probabilities.
OF_SIGMOIDS = (binary_kl, binary_cross_entropy)

# Losses that look at nothing but the softmaxes of both sides, class by class,
# so that several classes can be put together; see `jaxkd.logits.sparse`.
OF_SPARSE = (
  kl,
  reverse_kl,
  jensen_shannon,
  skewed_kl,
  skewed_reverse_kl,
  total_variation,
  soft_cross_entropy,
)
# Losses that take `jaxkd.logits.Factored` for logits, and form them in chunks
# of the classes.
OF_FACTORED = (*OF_SPARSE, cross_entropy, pseudo_label)

__all__ = [
  # Responses
  'kl',
  'reverse_kl',
  'binary_kl',
  'jensen_shannon',
  'skewed_kl',
  'skewed_reverse_kl',
  'total_variation',
  'soft_cross_entropy',
  'permuted_soft_cross_entropy',
  'logit_mse',
  'probability_mse',
  'noisy_logit_mse',
  'top_k_kl',
  'universal_logit_distance',
  'decoupled_kl',
  'dist',
  'standardize',
  'weighted_soft_labels',
  'virtual_teacher',
  'cross_entropy',
  'binary_cross_entropy',
  'pseudo_label',
  'multi_level_logits',
  # Features
  'hint',
  'cosine',
  'attention_transfer',
  'neuron_selectivity',
  'flow_of_solution',
  'activation_boundary',
  'factor_transfer',
  'overhaul',
  'overhaul_margin',
  'hierarchical_context',
  'channel_wise',
  'pearson_feature',
  'masked_imitation',
  'log_sum',
  'maximum_mean_discrepancy',
  # Regression
  'squared_error',
  'teacher_bounded',
  # Relations
  'rkd_distance',
  'rkd_angle',
  'similarity_preserving',
  'probabilistic_transfer',
  'correlation_congruence',
  'inter_channel_correlation',
  'pairwise_affinity',
  'triplet',
  'triplet_votes',
  # Information and contrast
  'variational_information',
  'info_nce',
  'contrastive',
  'contrastive_normalizer',
  # Adversarial
  'reverse_gradient',
  'wasserstein_critic',
  'gradient_penalty',
  # Sequences
  'ctc',
  'sampled_reverse_kl',
  # Example weights, targets, fusion
  'teacher_is_correct',
  'teacher_confidence',
  'permute_dark_knowledge',
  'error_weights',
  'confidence_weights',
  'mean_probabilities',
  'mean_logits',
  'geometric_mean',
  'majority_vote',
  'fuse_specialists',
]
