"""What requests and answers hold: every field of OpenAI's that is read, with its bound, and ours beside them.

A field that is not here is refused by name. One whose only values change nothing (store=false) is taken with
these values, so that clients which always send it can ask.
"""
