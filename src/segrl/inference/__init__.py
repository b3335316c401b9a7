"""What happens at test time between a query and its masks: how completions are drawn, voted over and looked at again.

Decoding    how answers are generated: samples, temperature, second look, the rule of a vote
answer      images and queries → replies
vote        several answers to one question → one that keeps the objects apart
"""

from segrl.inference.answering import answer
from segrl.inference.decoding import PLAIN, PLAINLY, Decoding, Reply
from segrl.inference.vote import VoteRule, vote

__all__ = ["PLAIN", "PLAINLY", "Decoding", "Reply", "VoteRule", "answer", "vote"]
