"""How the dual encoder is trained: on heads of which everything is known.

lessons.py      pictures as photos are, and the truth about their heads
judge.py        the discriminator of occluded tri-planes
objective.py    the losses
trainer.py      both encoders' schedule, steps and state
__main__.py     python -m pmv.training.encoder: one piece of the chain
"""
