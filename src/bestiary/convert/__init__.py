"""Models to other forms of file: any that is loaded here, as GGUF or as Hugging Face's safetensors."""
