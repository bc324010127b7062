"""A model behind HTTP: OpenAI's API and a page, by two processes.

    front    asyncio: HTTP, bounds, keys, templates, tokens, streams   (server, app, routes, service, link)
    worker   a child that holds the model and the engine, and nothing else   (worker); or several (replicas)

They speak JSON frames over the child's standard input and output (wire). A worker that dies takes no stream
with it in silence: the front ends each with an error and starts another.
"""
