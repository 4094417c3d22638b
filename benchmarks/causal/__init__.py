"""Is the posterior over graphs of causes right, and what does it cost?"""
