"""What is optimised: contrastive losses, and what counts as a negative."""

from recsys_cl.objectives.contrastive import info_nce_loss
from recsys_cl.objectives.known import KnownPositives
from recsys_cl.objectives.negatives import in_batch_log_q

__all__ = ["KnownPositives", "in_batch_log_q", "info_nce_loss"]
