"""The same application as a Ray Serve deployment, on one machine or many. Needs `pip install bestiary[ray]`.

app      what is deployed: the front as ASGI ingress, and the engine's replicas behind it
replica  one replica: the model in a worker of its own, as on one machine (link)
routing  which replica a request goes to: who was sent most of its beginning (prefixes)
workers  the front's side: replicas that are reached through a deployment handle
command  `bestiary serve --ray`: connects, deploys, and takes away what it deployed

Nothing outside this package imports ray. What Ray sends between its processes is Ray's own (it pickles);
what is handed to it here is plain data.
"""
