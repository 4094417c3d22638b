"""Are verdicts right, are their probabilities calibrated, do they cost nothing, and what do they cost to get?"""
