"""`pmv studio`: the operations of `pmv.apps` on a page in a browser.

`reach` says who may come in, `guard` what a browser may ask for, `workspace` where whose heads lie, `jobs` and `worker`
how one thing after another is done, `correction` and `painting` what is changed by hand, `turning` what is shown at
once; `page` puts it on a page and `server` opens it. Only the last two know Gradio.
"""
